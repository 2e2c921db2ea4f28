"""The gate in front of all routes: who asks, whether they may, and a line in the log of changes.

It works before a byte of a body is read, and before FastAPI looks at anything. The path is always that of the scope, by
which routes are found: what is put together from the Host header (`request.url`) can be somebody else's invention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import audit, policy
from service.access.access import Access
from service.access.errors import CrossOrigin, NotSignedIn, ScopeTooSmall, TooManyRequests
from service.access.principal import PROXY, Credential, Principal
from service.access.rate_limits import network_of
from service.access.scopes import AccessScope
from service.access.sessions import session_id_of
from tuner.errors import TesseraError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEALTH = frozenset({"/healthz", "/readyz"})
_NOBODY = "Nobody is signed in."


class Gate:
    """``refuse`` makes an answer of an error. Routes find who asks in ``request.state.principal``."""

    def __init__(self, app: ASGIApp, *, refuse: Callable[[Request, TesseraError], Response]) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        access: Access = request.app.state.access
        need = policy.needed(scope["method"], scope["path"])
        answer: ASGIApp = self._app
        principal: Principal | None = None
        try:
            principal = await _identify(request, access, need)
            if principal is not None:
                _authorise(request, principal, need)
        except TesseraError as error:
            answer = self._refuse(request, error)
        request.state.principal = principal
        if principal is not None and request.method not in SAFE_METHODS:
            send = _noted(access, request, principal, send)
        await answer(scope, receive, send)


async def _identify(request: Request, access: Access, need: policy.Need | None) -> Principal | None:
    """Who asks; None where everybody may. Raises `NotSignedIn` and `TooManyRequests`."""
    if request.scope["path"] in _HEALTH:
        return None
    address = address_of(request)
    if wait_s := access.limits.addresses.take(network_of(address)):
        raise TooManyRequests(f"Too many requests from {address}.", wait_s=wait_s)
    if need is policy.FREE:
        return None
    credential = _credential(request)
    if credential is None:
        if access.behind_proxy:
            return PROXY
        raise NotSignedIn(_NOBODY)
    principal = await access.identify(credential, address)
    if principal is None:
        what = "token" if credential.kind == "token" else "session"
        raise NotSignedIn(f"The {what} is unknown, was revoked, or has expired.")
    if wait_s := access.limits.tokens.take(principal.token_id):
        raise TooManyRequests(f"Too many requests with the token {principal.name!r}.", wait_s=wait_s)
    return principal


def _credential(request: Request) -> Credential | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return Credential.of("token", secret.strip())
    session_id = session_id_of(request)
    return Credential.of("session", session_id) if session_id else None


def _authorise(request: Request, principal: Principal, need: policy.Need | None) -> None:
    """Raises `ScopeTooSmall` and `CrossOrigin`."""
    if need is None and _leads_somewhere(request):
        raise ScopeTooSmall(f"No rule allows {request.method} {request.scope['path']}.")
    if isinstance(need, AccessScope) and not principal.scope.includes(need):
        has = principal.scope.value
        raise ScopeTooSmall(f"This needs the scope {need.value}; the token {principal.name!r} has {has}.")
    by_cookie = principal.credential is not None and principal.credential.kind == "session"
    if by_cookie and request.method not in SAFE_METHODS and not _from_own_page(request):
        raise CrossOrigin("The request does not say that a page of this server asked for this change.")


def _leads_somewhere(request: Request) -> bool:
    """Whether there is a route that would answer. Asked only for what no rule has."""
    scope: dict[str, Any] = dict(request.scope)
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)


def _from_own_page(request: Request) -> bool:
    """Browsers name the page's origin in every request that changes something; no script can hide it."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site") == "same-origin"
    return urlsplit(origin).netloc == request.headers.get("host", "")


def _noted(access: Access, request: Request, principal: Principal, send: Send) -> Send:
    """No change is answered before it is in the log."""

    async def send_noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            await run_sync(
                lambda: audit.record(
                    access.database,
                    principal,
                    address=address_of(request),
                    method=request.method,
                    path=request.scope["path"],
                    status=message["status"],
                )
            )
        await send(message)

    return send_noted


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""
