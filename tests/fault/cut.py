"""A TCP proxy whose connections can be cut."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHUNK_BYTES = 65536


class Proxy:
    """Forwards to a port of this machine, until it is cut: connections break, and new ones are refused for a while."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._cut_until = 0.0
        self._stopped = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._listener.close()
            self._break()

    def cut(self, *, for_s: float) -> None:
        self._cut_until = time.monotonic() + for_s
        self._break()

    def _break(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._cut_until:
                client.close()
                continue
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._to_port)) as server:
            self._open |= {client, server}
            try:
                while True:
                    for source in select.select([client, server], [], [])[0]:
                        chunk = source.recv(_CHUNK_BYTES)
                        if not chunk:
                            return
                        (server if source is client else client).sendall(chunk)
            finally:
                self._open -= {client, server}
