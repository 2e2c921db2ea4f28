"""Access tokens: 256 random bits, kept as their SHA-256, with a name, a scope, a project and an end.

Besides those that people make there are two kinds: ``local``, whose secret lies in the data directory
(`service.access.local_token`), and ``bootstrap``, whose secret the environment gives. People who sign in at a provider
have one each, whose secret nobody knows (`service.access.oidc`).
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from service.access.principal import DEFAULT_PROJECT, sha256_of
from service.access.scopes import AccessScope
from service.database import Database
from service.database.base import now
from service.database.tables import AccessToken
from service.errors import Conflict, NotFound, ServiceError
from service.ids import new_id
from service.schemas.access import TokenCreate, TokenCreated, TokenSchema

Kind = Literal["made", "local", "bootstrap"]
PREFIX = "tss_"
_SHAPE = re.compile(r"tss_[A-Za-z0-9_-]{43,200}")
# Fewer different characters than any random secret has, in hexadecimal too.
_LEAST_CHARACTERS = 8


class WeakToken(ServiceError):
    """A secret that was set is empty, an example, or too short."""

    code = "weak_token"
    hint = 'Make one with: echo "tss_$(openssl rand -hex 32)"'


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def require_usable(database: Database, secret: str) -> None:
    """Raises `WeakToken` for what is not ``tss_`` and 43 random letters, digits, ``-`` and ``_``, or was revoked."""
    if not secret:
        raise WeakToken("TESSERA_BOOTSTRAP_TOKEN is empty.")
    if not _SHAPE.fullmatch(secret) or len(set(secret.removeprefix(PREFIX))) < _LEAST_CHARACTERS:
        raise WeakToken("TESSERA_BOOTSTRAP_TOKEN is no token: tss_ and at least 43 random characters.")
    with database.read() as session:
        known = find(session, secret)
    if known is not None and known.revoked_at is not None:
        raise WeakToken("The token of TESSERA_BOOTSTRAP_TOKEN was revoked.")


def create_token(database: Database, request: TokenCreate, *, own_project: str = DEFAULT_PROJECT) -> TokenCreated:
    """Make a token, of whoever makes it (``own_project``) where the request names no project; its secret is told this
    once. Raises `Conflict` (``token_exists``)."""
    secret = new_secret()
    expires_at = now() + timedelta(seconds=request.expires_in_s) if request.expires_in_s is not None else None
    with database.write() as session:
        taken = select(AccessToken.id).where(AccessToken.name == request.name, is_live())
        if session.scalar(taken) is not None:
            raise Conflict(
                f"There is a token named {request.name!r} already.",
                code="token_exists",
                hint="Choose another name, or revoke that one first.",
            )
        token = add_token(
            session,
            secret,
            name=request.name,
            kind="made",
            scope=request.scope,
            project=request.project or own_project,
            expires_at=expires_at,
        )
        return TokenCreated(**_schema(token).model_dump(), token=secret)


def list_tokens(database: Database) -> list[TokenSchema]:
    """All of them, also those that have ended, the oldest first."""
    with database.read() as session:
        return [_schema(token) for token in session.scalars(select(AccessToken).order_by(AccessToken.id))]


def revoke_token(database: Database, which: str) -> TokenSchema:
    """End a token, by its id or its name, and the sessions that it opened. Raises `NotFound` (``token_not_found``)."""
    named = or_(AccessToken.id == which, AccessToken.name == which)
    with database.write() as session:
        token = session.scalar(select(AccessToken).where(named, is_live()).order_by(AccessToken.id))
        if token is None:
            raise NotFound(
                f"There is no token {which!r} that could be revoked.",
                code="token_not_found",
                hint="List them with: tessera token list",
            )
        token.revoked_at = now()
        session.flush()
        return _schema(token)


def count_shared(database: Database) -> int:
    """Tokens that others than this machine's user can have: all live ones but the local one."""
    with database.read() as session:
        query = select(func.count()).select_from(AccessToken).where(AccessToken.kind != "local", is_live())
        return session.scalar(query) or 0


def keep_bootstrap(database: Database, secret: str | None) -> None:
    """Make the token of the environment the only one of its kind; without one there is none. Raises `WeakToken`."""
    if secret is not None:
        require_usable(database, secret)
    others = and_(AccessToken.kind == "bootstrap", AccessToken.revoked_at.is_(None))
    if secret is not None:
        others = and_(others, AccessToken.secret_sha256 != sha256_of(secret))
    with database.write() as session:
        session.execute(update(AccessToken).where(others).values(revoked_at=now()))
        if secret is not None and find(session, secret) is None:
            add_token(session, secret, name="bootstrap", kind="bootstrap", scope=AccessScope.ADMIN)


def find(session: Session, secret: str) -> AccessToken | None:
    return session.scalar(select(AccessToken).where(AccessToken.secret_sha256 == sha256_of(secret)))


def add_token(
    session: Session,
    secret: str,
    *,
    name: str,
    kind: Kind,
    scope: AccessScope,
    project: str = DEFAULT_PROJECT,
    expires_at: datetime | None = None,
) -> AccessToken:
    token = AccessToken(
        id=new_id(),
        name=name,
        kind=kind,
        scope=scope.value,
        project=project,
        secret_sha256=sha256_of(secret),
        expires_at=expires_at,
    )
    session.add(token)
    session.flush()
    return token


def is_live() -> ColumnElement[bool]:
    return and_(AccessToken.revoked_at.is_(None), or_(AccessToken.expires_at.is_(None), AccessToken.expires_at > now()))


def _schema(token: AccessToken) -> TokenSchema:
    return TokenSchema.model_validate(token, from_attributes=True)
