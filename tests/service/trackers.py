"""A tracker that says what a test wants: TVM's protocol, without TVM."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator

from tuner.measure.tracker import Tracker

_MAGIC, _SUMMARY, _SUCCESS = 0x2F271, 6, 0


class FakeTracker:
    """``boards`` are (key, port) of those that have joined, all of them free, but ``busy`` ones."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.address = Tracker(host="127.0.0.1", port=listener.getsockname()[1])
        self.boards: list[tuple[str, int]] = []
        self.busy = 0

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError, struct.error):
                    self._obey(connection)

    def _obey(self, connection: socket.socket) -> None:
        connection.sendall(connection.recv(4))
        (size,) = struct.unpack("<i", connection.recv(4))
        assert json.loads(connection.recv(size)) == [_SUMMARY]
        keys = {key for key, _ in self.boards}
        free = {key: {"free": sum(each == key for each, _ in self.boards) - self.busy, "pending": 0} for key in keys}
        boards = [{"key": f"server:{key}", "addr": ["127.0.0.1", port]} for key, port in self.boards]
        data = json.dumps([_SUCCESS, {"queue_info": free, "server_info": boards}]).encode()
        connection.sendall(struct.pack("<i", len(data)) + data)


@contextlib.contextmanager
def fake_tracker() -> Iterator[FakeTracker]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tracker = FakeTracker(listener)
        thread = threading.Thread(target=tracker.answer, daemon=True)
        thread.start()
        yield tracker
        # Wakes the thread, which accept() would keep for ever.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
