"""Links that sign a browser in, once, within minutes. They are kept in memory: a server that ends takes them along."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from service.access.principal import sha256_of

PREFIX = "tsl_"
LIFETIME_S = 600.0
_MOST = 100


class SignInLinks:
    """Codes, and the token that each signs in with. Used by several threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: dict[str, tuple[str, float]] = {}

    def make(self, token_id: str) -> str:
        """A new code; beyond a hundred the oldest one ends."""
        code = PREFIX + secrets.token_urlsafe(32)
        self._open[sha256_of(code)] = token_id, self._clock() + LIFETIME_S
        for oldest in list(self._open)[:-_MOST]:
            self._open.pop(oldest, None)
        return code

    def redeem(self, code: str) -> str | None:
        """The id of the code's token, for the first who asks in time; None for everybody else."""
        token_id, ends_at = self._open.pop(sha256_of(code), (None, 0.0))
        return token_id if self._clock() < ends_at else None
