"""Tokens, sign-in, and the log of changes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.access.principal import PROJECT_NAME
from service.access.scopes import AccessScope

MAX_TOKEN_LIFE_S = 10 * 365 * 24 * 3600


class TokenCreate(BaseModel):
    """A new access token; without `expires_in_s` it lives until it is revoked."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = Field(
        description="who or what it is for, such as ci"
    )
    scope: AccessScope = Field(description="each includes the ones before it: read, submit, admin")
    project: Annotated[str, StringConstraints(pattern=f"^{PROJECT_NAME}$")] | None = Field(
        default=None,
        description="whose models, jobs and records it sees; without one, what the token that makes it sees",
    )
    expires_in_s: float | None = Field(
        default=None, gt=0, le=MAX_TOKEN_LIFE_S, description="until it expires, ten years at most"
    )


class TokenSchema(BaseModel):
    """An access token. `kind` is `made`, `local` (of the data directory) or `bootstrap` (of the environment);
    `last_used_at` is right to a minute."""

    id: str
    name: str
    kind: str
    scope: AccessScope
    project: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class TokenCreated(TokenSchema):
    """`token` is what requests are made with. It is not shown again."""

    token: str


class SignInLink(BaseModel):
    """An address that signs one browser in, once, until `expires_at`."""

    url: str
    expires_at: datetime


class AuditEntrySchema(BaseModel):
    """A change that somebody asked for. `who` is the name of a token, `status` what it was answered; null for a command
    on the server's machine."""

    id: int
    at: datetime
    who: str
    token_id: str | None
    address: str
    method: str
    path: str
    status: int | None
