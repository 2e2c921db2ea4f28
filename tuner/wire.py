"""Messages between a job's two processes, over a pair of connected sockets: JSON, with raw bytes behind it.

A frame is a header (the size of the JSON text, the number of byte strings and their sizes), the text, and the byte
strings. Nothing is ever pickled. Whoever receives says how much it takes at most, before it takes any of it.
"""

from __future__ import annotations

import json
import math
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_HEADER = struct.Struct("!II")
_SIZE = struct.Struct("!Q")
_MOST_BLOBS = 4
_CHUNK_BYTES = 1 << 20
# The escape of one half of a character, which JSON can write and nobody can store; or a part of a longer text.
_MAYBE_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class WireError(Exception):
    """What came is no message, or more than is taken; the message says which."""


@dataclass(frozen=True)
class Message:
    """``body`` is a JSON object, ``blobs`` the byte strings behind it."""

    body: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def send(connection: socket.socket, body: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Raises OSError when the other side is gone, and ValueError for numbers that JSON has not (NaN)."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode()
    sizes = b"".join(_SIZE.pack(len(blob)) for blob in blobs)
    connection.sendall(b"".join([_HEADER.pack(len(text), len(blobs)), sizes, text]))
    for blob in blobs:
        connection.sendall(blob)


def receive(connection: socket.socket, *, most_bytes: int) -> Message | None:
    """The next message; None when the other side has closed between two. Raises `WireError`, and
    OSError where the other side has gone in the middle of one."""
    header = _read(connection, _HEADER.size, or_nothing=True)
    if header is None:
        return None
    text_bytes, count = _HEADER.unpack(header)
    if count > _MOST_BLOBS:
        raise WireError(f"a message of {count} byte strings")
    sizes = [_SIZE.unpack(_read(connection, _SIZE.size) or b"")[0] for _ in range(count)]
    if (total := text_bytes + sum(sizes)) > most_bytes:
        raise WireError(f"a message of {total} bytes, {most_bytes} are allowed")
    text = _read(connection, text_bytes)
    blobs = tuple(_read(connection, size) or b"" for size in sizes)
    try:
        body = json.loads((text or b"").decode(), parse_constant=_no_number, parse_float=_finite)
        if _MAYBE_HALF.search(text or b""):
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise WireError(f"a message that is no JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise WireError("a message that is no JSON object")
    return Message(body, blobs)


def _read(connection: socket.socket, count: int, *, or_nothing: bool = False) -> bytes | None:
    """That many bytes; None where there are none at all and that is as well."""
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(count - len(data), _CHUNK_BYTES))
        if not part:
            if or_nothing and not data:
                return None
            raise ConnectionError("the message was cut off")
        data += part
    return bytes(data)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item()


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value
