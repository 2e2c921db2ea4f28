"""Sessions of browsers. The cookie holds 256 random bits, the database their SHA-256; a session ends with its token."""

from __future__ import annotations

import secrets
from datetime import timedelta

from sqlalchemy import delete
from starlette.requests import HTTPConnection
from starlette.responses import Response

from service.access.principal import sha256_of
from service.database import Database
from service.database.base import now
from service.database.tables import BrowserSession

PREFIX = "tsn_"


def open_session(database: Database, token_id: str, *, lifetime_s: float, instead_of: str | None = None) -> str:
    """A new id, whatever the browser brought: an id that somebody else planted opens nothing. The one before ends."""
    session_id = PREFIX + secrets.token_urlsafe(32)
    moment = now()
    with database.write() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= moment))
        if instead_of is not None:
            session.execute(delete(BrowserSession).where(BrowserSession.id_sha256 == sha256_of(instead_of)))
        session.add(
            BrowserSession(
                id_sha256=sha256_of(session_id), token_id=token_id, expires_at=moment + timedelta(seconds=lifetime_s)
            )
        )
    return session_id


def close_session(database: Database, session_id: str) -> None:
    with database.write() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.id_sha256 == sha256_of(session_id)))


def session_id_of(request: HTTPConnection) -> str | None:
    return request.cookies.get(_cookie_name(request))


def set_cookie(request: HTTPConnection, response: Response, session_id: str, *, lifetime_s: float) -> None:
    """No script sees it, and no page of another site can send it with a change: Lax sends it with links only."""
    response.set_cookie(
        _cookie_name(request),
        session_id,
        max_age=int(lifetime_s),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def drop_cookie(request: HTTPConnection, response: Response) -> None:
    response.delete_cookie(
        _cookie_name(request), path="/", secure=request.url.scheme == "https", httponly=True, samesite="lax"
    )


def attempt_of(request: HTTPConnection) -> str | None:
    return request.cookies.get(f"{_cookie_name(request)}_attempt")


def set_attempt(request: HTTPConnection, response: Response, value: str, *, path: str, lifetime_s: int) -> None:
    """The cookie of a browser that was sent to a provider, and comes back from there by a link; 0 ends it."""
    response.set_cookie(
        f"{_cookie_name(request)}_attempt",
        value,
        max_age=lifetime_s,
        path=path,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def _cookie_name(request: HTTPConnection) -> str:
    """Cookies know no ports: two servers of one machine would sign each other's browsers out."""
    server = request.scope.get("server")
    return f"tessera_{server[1] if server else ''}"
