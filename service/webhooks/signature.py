"""How a message to a webhook is signed, and how its reader checks that. Needs the standard library only."""

from __future__ import annotations

import hashlib
import hmac
import time

HEADER = "Tessera-Signature"
"""``t=SECONDS,v1=HEX``: HMAC-SHA256 with the webhook's secret over ``SECONDS.BODY``."""


def signature(body: bytes, *, secret: str, time_s: int) -> str:
    """The header's value for a message that is sent at that time (Unix seconds)."""
    return f"t={time_s},v1={_digest(body, secret, time_s)}"


def is_signed(body: bytes, header: str, *, secret: str, tolerance_s: float = 300.0, now_s: float | None = None) -> bool:
    """Whether a message is ours, and not older (or newer) than ``tolerance_s``: an old one may be a repetition."""
    fields = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    told = fields.get("t", "")
    if not (told.isascii() and told.isdecimal() and len(told) < 16):
        return False
    is_fresh = abs((time.time() if now_s is None else now_s) - int(told)) <= tolerance_s
    return is_fresh and hmac.compare_digest(fields.get("v1", "").encode(), _digest(body, secret, int(told)).encode())


def _digest(body: bytes, secret: str, time_s: int) -> str:
    return hmac.new(secret.encode(), f"{time_s}.".encode() + body, hashlib.sha256).hexdigest()
