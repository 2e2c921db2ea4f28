"""A client of TVM's RPC tracker, which knows the boards: who is there, and may I have one. Without TVM.

The protocol is that of ``tvm/rpc/tracker.py``: a magic number, then messages of a length and JSON, each answered. It is
plain text, without any authentication.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

from tuner.errors import WorkerError

_MAGIC = 0x2F271
_SUCCESS, _REQUEST, _SUMMARY = 0, 4, 6
_MAX_MESSAGE_BYTES = 1 << 20
_ANSWER_S = 5.0


class TrackerError(WorkerError):
    """The tracker does not answer, or answers something else."""

    code = "tracker_unreachable"
    hint = "Start it with: tessera devices serve. Its address is the setting TESSERA_TRACKER."


@dataclass(frozen=True, kw_only=True, order=True)
class Board:
    """A board that has joined under a key (the name of a target), at an address for measuring."""

    key: str
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What the tracker says: all boards, and how many of each key are free."""

    boards: tuple[Board, ...]
    free: dict[str, int]

    def of(self, key: str) -> list[Board]:
        return [board for board in self.boards if board.key == key]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A board that is ours when we connect to it with the key that it waits for."""

    board: Board
    match_key: str


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Where the tracker listens. Every method raises `TrackerError`."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Tracker:
        """``"127.0.0.1:9190"``; raises ValueError for anything else."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r} is no address of a tracker, such as 127.0.0.1:9190")
        return cls(host=host.strip("[]"), port=int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def fleet(self) -> Fleet:
        """Who has joined."""
        summary = self._ask([_SUMMARY], timeout_s=_ANSWER_S)
        try:
            boards = [
                Board(key=each["key"].removeprefix("server:"), host=str(each["addr"][0]), port=int(each["addr"][1]))
                for each in summary["server_info"]
            ]
            free = {key: int(queue["free"]) for key, queue in summary["queue_info"].items()}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise TrackerError(f"What answers at {self} is no tracker of TVM: {error!r}") from error
        return Fleet(boards=tuple(sorted(boards)), free=free)

    def request(self, key: str, *, timeout_s: float) -> Lease | None:
        """A board of that key, None when none was free for so long."""
        try:
            host, port, match_key = self._ask([_REQUEST, key, "", 1], timeout_s=timeout_s)
            board = Board(key=key, host=str(host), port=int(port))
        except TimeoutError:
            return None
        except (TypeError, ValueError) as error:
            raise TrackerError(f"What answers at {self} is no tracker of TVM: {error!r}") from error
        return Lease(board=board, match_key=str(match_key))

    def _ask(self, message: list[Any], *, timeout_s: float) -> Any:
        """Raises `TimeoutError` where the tracker is there and the answer does not come in time."""
        try:
            with socket.create_connection((self.host, self.port), timeout=_ANSWER_S) as connection:
                connection.sendall(struct.pack("<i", _MAGIC))
                if struct.unpack("<i", _received(connection, 4))[0] != _MAGIC:
                    raise TrackerError(f"What answers at {self} is no tracker of TVM.")
                data = json.dumps(message).encode()
                connection.sendall(struct.pack("<i", len(data)) + data)
                connection.settimeout(timeout_s)
                size = struct.unpack("<i", _received(connection, 4))[0]
                if not 0 <= size <= _MAX_MESSAGE_BYTES:
                    raise TrackerError(f"What answers at {self} is no tracker of TVM.")
                answer = json.loads(_received(connection, size))
        except TimeoutError:
            if message[0] == _REQUEST:
                raise
            raise TrackerError(f"The tracker at {self} does not answer.") from None
        except (OSError, ValueError) as error:
            raise TrackerError(f"The tracker at {self} cannot be reached: {error}") from error
        if not isinstance(answer, list) or len(answer) != 2 or answer[0] != _SUCCESS:
            raise TrackerError(f"The tracker at {self} refused: {answer}")
        return answer[1]


def _received(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise OSError("the connection was closed")
        data += part
    return data
