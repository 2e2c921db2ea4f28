"""A proxy in front of a server that cuts its event streams."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_CHUNK_BYTES = 512


@dataclass
class Cutter:
    """Forwards connections to ``port``. Of the first ``most`` event streams each is cut after a random number of bytes,
    mostly in the middle of an event."""

    port: int
    most: int
    generator: random.Random
    cuts: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as server:
            up = threading.Thread(target=self._up, args=(client, server), daemon=True)
            up.start()
            left: int | None = None
            while data := server.recv(_CHUNK_BYTES):
                if b"text/event-stream" in data:
                    left = self._bytes_until_cut()
                if left is not None:
                    data, left = data[:left], left - len(data)
                client.sendall(data)
                if left is not None and left <= 0:
                    with self.lock:
                        self.cuts += 1
                    break
            # Closing alone would wait for the other thread, which reads.
            client.shutdown(socket.SHUT_RDWR)

    def _bytes_until_cut(self) -> int | None:
        with self.lock:
            return self.generator.randrange(300, 4000) if self.cuts < self.most else None

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK_BYTES):
                server.sendall(data)


@contextmanager
def cutting(port: int, *, most: int, seed: int) -> Iterator[tuple[str, Cutter]]:
    """The proxy's URL, and what it did so far."""
    cutter = Cutter(port=port, most=most, generator=random.Random(seed))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=cutter.serve, args=(listener,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", cutter
        finally:
            # Wakes the accept, which closing alone does not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
