"""Damage to a file that knows nothing of what the file means."""

from __future__ import annotations

import random
from collections.abc import Callable

_LONGEST_VARINT = b"\xff" * 9 + b"\x01"
_NUMBERS = (b"\x00", b"\x01", b"\x7f", b"\x80\x01", b"\xff\xff\xff\xff\x0f", _LONGEST_VARINT, b"\xff" * 10 + b"\x01")


def mutate_bytes(content: bytes, donor: bytes, rng: random.Random) -> bytes:
    """One to six mutations; ``donor`` is another file, whose pieces may be put in."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not damaged:
            break
        rng.choice(_MUTATIONS)(damaged, donor, rng)
    return bytes(damaged)


def _flip(content: bytearray, donor: bytes, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(content: bytearray, donor: bytes, rng: random.Random) -> None:
    content[rng.randrange(len(content))] = rng.randrange(256)


def _insert(content: bytearray, donor: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _number(content: bytearray, donor: bytes, rng: random.Random) -> None:
    at, number = rng.randrange(len(content)), rng.choice(_NUMBERS)
    content[at : at + rng.choice((0, 1, len(number)))] = number


def _delete(content: bytearray, donor: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    del content[at : at + rng.choice((1, 1, 2, 4, 16, 256))]


def _repeat(content: bytearray, donor: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    piece = content[at : at + rng.choice((1, 8, 64, 512))]
    content[at:at] = piece * rng.choice((1, 1, 2, 50))


def _splice(content: bytearray, donor: bytes, rng: random.Random) -> None:
    at, source = rng.randrange(len(content)), rng.randrange(len(donor))
    length = rng.choice((4, 16, 64, 256))
    content[at : at + length] = donor[source : source + length]


def _truncate(content: bytearray, donor: bytes, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _append(content: bytearray, donor: bytes, rng: random.Random) -> None:
    # Protobuf merges what follows: two models in one file are one model with both's nodes.
    content += donor if rng.random() < 0.5 else rng.randbytes(16)


_MUTATIONS: tuple[Callable[[bytearray, bytes, random.Random], None], ...] = (
    _flip,
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _insert,
    _number,
    _delete,
    _repeat,
    _splice,
    _truncate,
    _append,
)
