"""Signing a browser in, by a token or by a link, and out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.access import audit
from service.access.errors import NotSignedIn, TooManyRequests
from service.access.gate import address_of
from service.access.principal import Credential, Principal
from service.access.refusals import SIGN_IN, own_address
from service.access.scopes import AccessScope
from service.access.sessions import close_session, drop_cookie, open_session, session_id_of, set_cookie
from service.api.dependencies import get_access, get_server
from service.dashboard.pages import PageRoute, render
from service.errors import ServiceError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_NOBODY = Principal(name="nobody", scope=AccessScope.READ)
_Next = Annotated[str, Query(max_length=2000)]
_LINK_HINT = "On the server's machine, `tessera token link` prints another one. Or paste a token."
_TOKEN_HINT = "Paste it whole; it begins with tss_. On the server's machine, `tessera token create` makes one."


@router.get(SIGN_IN)
def show_sign_in(request: Request, code: Annotated[str, Query(max_length=100)] = "", next: _Next = "/") -> Response:
    """With the code of a link: the browser is signed in, and goes where it wanted to."""
    if not code:
        return _page(request, next=next)
    access = get_access(request)
    try:
        access.refuse_guessing(address_of(request))
        token_id = access.links.redeem(code)
        if token_id is None:
            told = "The link was used already, or is older than ten minutes."
            raise _wrong(request, NotSignedIn(told, hint=_LINK_HINT))
    except (NotSignedIn, TooManyRequests) as error:
        return _page(request, next=next, error=error)
    return _signed_in(request, token_id, next=next)


@router.post(SIGN_IN)
def sign_in(
    request: Request,
    token: Annotated[str, Form(max_length=300)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    access = get_access(request)
    try:
        access.refuse_guessing(address_of(request))
        principal = access.authenticator.look_up(Credential.of("token", token.strip()))
        if principal is None or principal.token_id is None:
            raise _wrong(request, NotSignedIn("The token is unknown, was revoked, or has expired.", hint=_TOKEN_HINT))
    except (NotSignedIn, TooManyRequests) as error:
        return _page(request, next=next, error=error)
    return _signed_in(request, principal.token_id, next=next)


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    response = RedirectResponse(SIGN_IN, status_code=303)
    session_id = session_id_of(request)
    if session_id is not None:
        close_session(get_server(request).database, session_id)
        get_access(request).authenticator.forget()
        drop_cookie(request, response)
    return response


def _signed_in(request: Request, token_id: str, *, next: str) -> Response:
    settings, database = get_server(request).settings, get_server(request).database
    lifetime_s = settings.session_lifetime_s
    session_id = open_session(database, token_id, lifetime_s=lifetime_s, instead_of=session_id_of(request))
    authenticator = get_access(request).authenticator
    authenticator.forget()  # the session before
    principal = authenticator.look_up(Credential.of("session", session_id))
    _note(request, principal or _NOBODY, status=303)
    response = RedirectResponse(own_address(next), status_code=303, headers={"Cache-Control": "no-store"})
    set_cookie(request, response, session_id, lifetime_s=lifetime_s)
    return response


def _wrong(request: Request, error: NotSignedIn) -> NotSignedIn:
    get_access(request).note_failure(address_of(request))
    _note(request, _NOBODY, status=error.status)
    return error


def _note(request: Request, principal: Principal, *, status: int) -> None:
    """These routes are for everybody: the gate does not know who it was."""
    audit.record(
        get_server(request).database,
        principal,
        address=address_of(request),
        method=request.method,
        path=SIGN_IN,
        status=status,
    )


def _page(request: Request, *, next: str, error: ServiceError | None = None) -> Response:
    context = {"next": own_address(next), "error": error}
    response = render("sign_in.html", context, status=error.status if error else 200, here=SIGN_IN)
    response.headers.update(error.headers if error else {})
    return response
