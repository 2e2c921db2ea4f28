"""Cursors: opaque to clients, the last row's sort key inside."""

from __future__ import annotations

import base64
import binascii
import json

from service.errors import Invalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000


def encode_cursor(*key: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *kinds: type) -> list[str | int]:
    """The sort key inside a cursor; raises `Invalid` (``invalid_cursor``) for anything that we did not make."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        key = None
    if (
        not isinstance(key, list)
        or len(key) != len(kinds)
        or any(type(part) is not kind for part, kind in zip(key, kinds, strict=True))
    ):
        raise bad_cursor()
    return key


def bad_cursor() -> Invalid:
    return Invalid(
        "The cursor is not one of this list.",
        code="invalid_cursor",
        hint="Pass next_cursor of the page before as it is, or leave cursor out to start again.",
    )
