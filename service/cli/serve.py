"""``tessera serve``."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.installed import require_server
from service.cli.options import DataDir, load_settings
from service.errors import DataDirInUse, ServiceError

if TYPE_CHECKING:
    import socket

    from service.settings import Settings

Engine = Literal["local", "ray"]

_SWITCH_S = 0.0005


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (8765); 0 takes a free one.")] = None,
    data_dir: DataDir = None,
    max_parallel_jobs: Annotated[int | None, typer.Option(help="Jobs run at once (1).")] = None,
    engine: Annotated[Engine | None, typer.Option(help="Where jobs run: on this machine, or on Ray.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Its address: ray://HEAD:10001.")] = None,
) -> None:
    """API, dashboard and engine; on SQLite and local disk unless settings say otherwise."""
    require_server("tessera serve")
    from service.ownership import is_owned, owner_url

    settings = load_settings(
        data_dir, host=host, port=port, max_parallel_jobs=max_parallel_jobs, engine=engine, ray_address=ray_address
    )
    if settings.engine == "ray":
        from service.engine.ray_cluster import require_ray

        require_ray(settings)
    if is_owned(settings):
        raise DataDirInUse(f"A server uses {settings.data_dir} already: {owner_url(settings) or 'it is starting'}.")
    _require_database(settings)
    with _listen(settings) as listener:
        _run(settings, listener)


def _require_database(settings: Settings) -> None:
    """Before anything starts: a database that is not there, or of a newer Tessera, is told in one line."""
    from service.database import Database
    from service.database.upgrade import read_revisions, require_known

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url)
    require_known(read_revisions(database))
    database.close()


def _listen(settings: Settings) -> socket.socket:
    from service.listening import listen

    try:
        return listen(settings.host, settings.port)
    except OSError as error:
        raise ServiceError(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}.",
            code="port_in_use",
            hint="Choose another port: tessera serve --port 8766, or TESSERA_PORT.",
        ) from None


def _run(settings: Settings, listener: socket.socket) -> None:
    import uvicorn

    from service.app import create_app
    from service.ownership import announce

    address, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if address in ("0.0.0.0", "::") else address
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                # What is loaded now stays; without this each full collection walks it again, while a page waits.
                gc.collect()
                gc.freeze()
                announce(settings, url)
                print(f"Tessera is ready: {url}", flush=True)
                print(f"Data: {settings.data_dir}  REST reference: {url}/docs  Stop with Ctrl-C", flush=True)

    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        access_log=False,
        # Without this an idle event stream would keep the server alive for ever.
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    server = Server(config)
    # Each message of a stream lets go of the interpreter's lock and waits for it so long, where a thread computes.
    sys.setswitchinterval(_SWITCH_S)
    server.run([listener])
    if not server.started:
        raise typer.Exit(1)
