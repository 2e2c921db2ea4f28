"""Who asks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from service.access.scopes import AccessScope

DEFAULT_PROJECT = "default"
"""Whose everything is where nobody made another."""
PROJECT_NAME = "[a-z0-9-]{1,40}"


@dataclass(frozen=True)
class Credential:
    """What a request brings to say who asks, as its SHA-256: the secret itself is kept nowhere."""

    kind: Literal["token", "session"]
    sha256: str

    @classmethod
    def of(cls, kind: Literal["token", "session"], secret: str) -> Credential:
        return cls(kind, sha256_of(secret))


def sha256_of(secret: str) -> str:
    """What is stored of a secret. It has 256 random bits: no salt and no slow hash would add to that."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A token, or the browser session that it opened; None for ``token_id`` and ``credential`` where a proxy decides.

    ``name`` is the token's, ``expires_at`` the earlier end of session and token. Only what is of ``project`` is there.
    """

    name: str
    scope: AccessScope
    project: str = DEFAULT_PROJECT
    token_id: str | None = None
    credential: Credential | None = None
    expires_at: datetime | None = None


PROXY = Principal(name="proxy", scope=AccessScope.ADMIN)
