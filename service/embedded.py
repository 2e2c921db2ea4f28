"""A server inside this process, for commands that have none to talk to: same application, a free port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn

from service.app import create_app
from service.errors import ServiceError
from service.listening import listen
from service.ownership import announce
from service.settings import Settings

_START_WITHIN_S = 60.0
_STOP_WITHIN_S = 10.0


@contextlib.contextmanager
def serve_embedded(settings: Settings) -> Iterator[str]:
    """The URL of a server on ``settings.data_dir``; raises `DataDirInUse` when another process owns it."""
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_level="error",
        timeout_graceful_shutdown=settings.shutdown_grace_s,
        lifespan="on",
        access_log=False,
        proxy_headers=False,
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="tessera-server", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _START_WITHIN_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ServiceError(
                    "The embedded server did not start.",
                    code="server_not_started",
                    hint="Start it with `tessera serve` to see why.",
                )
            time.sleep(0.01)
        announce(settings, url)
        yield url
    finally:
        server.should_exit = True
        thread.join(_STOP_WITHIN_S)
        listener.close()


class _Server(uvicorn.Server):
    """Leaves the signals to the command: Ctrl-C is for it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
