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

    from service.access.access import Access
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
    _require_usable(settings)
    with _listen(settings) as listener:
        _run(settings, listener)


def _require_usable(settings: Settings) -> None:
    """Before anything starts: a database that is not there, or of a newer Tessera, and a server that others could reach
    without a token, are told in one line."""
    from service.access.start_up import require_access
    from service.database import Database
    from service.database.upgrade import upgrade
    from service.ownership import make_data_dir

    make_data_dir(settings)
    database = Database(settings.sqlalchemy_url)
    try:
        upgrade(database)
        require_access(settings, database)
    finally:
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
    from service.listening import is_loopback
    from service.ownership import announce

    address, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if address in ("0.0.0.0", "::") else address
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"

    app = create_app(settings)

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
                if is_loopback(address):  # elsewhere output goes to a log, where no secret belongs
                    access: Access = app.state.access
                    _invite(settings, f"{url}/sign-in?code={access.links.make(access.local_token_id)}")

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies,
        # Without this an idle event stream would keep the server alive for ever.
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    server = Server(config)
    # Each message of a stream lets go of the interpreter's lock and waits for it so long, where a thread computes.
    sys.setswitchinterval(_SWITCH_S)
    server.run([listener])
    if not server.started:
        raise typer.Exit(1)


def _invite(settings: Settings, link: str) -> None:
    """How a browser and curl get in. The token itself is not shown: terminals and journals keep what they show."""
    from shlex import quote

    print(f"Sign in: {link}  (once, within ten minutes; another one: tessera token link)", flush=True)
    print(f'For curl: export TESSERA_TOKEN="$(cat {quote(str(settings.token_path))})"', flush=True)
