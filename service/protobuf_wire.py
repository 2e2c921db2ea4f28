"""Reading protobuf's wire format without any schema compiler: fields of a message in a byte buffer, in order.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10

Buffer = bytes | mmap.mmap


class WireError(ValueError):
    """The bytes are not a whole message."""


class Scanner:
    """Walks messages inside ``buffer``; payloads are skipped, not read, so a large file costs its field count.

    ``max_fields`` bounds the work over all messages of this scanner: a file can have a field every two bytes.
    """

    def __init__(self, buffer: Buffer, *, max_fields: int) -> None:
        self.buffer = buffer
        self._fields_left = max_fields

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """``(field number, wire type, value, end)``: a number's value, or where its bytes begin and end.

        Raises `WireError` at a truncated or impossible field.
        """
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise WireError("there are too many fields")
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                raise WireError("there is a field without a number")
            if wire == VARINT:
                value, position = self._varint(position, end)
                yield number, wire, value, position
                continue
            if wire == BYTES:
                size, position = self._varint(position, end)
            elif wire in _FIXED_SIZE:
                size = _FIXED_SIZE[wire]
            else:
                raise WireError(f"there is a field of unknown kind {wire}")
            if size > end - position:
                raise WireError("a field is longer than what is left of the file")
            yield number, wire, position, position + size
            position += size

    def text(self, start: int, end: int) -> str:
        return self.buffer[start:end].decode("utf-8", errors="replace")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for count in range(_LONGEST_VARINT):
            if position >= end:
                raise WireError("the file ends inside a number")
            byte = self.buffer[position]
            position += 1
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                return value, position
        raise WireError("there is a number of more than 64 bits")
