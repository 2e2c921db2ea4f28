"""Signing a browser in, by a token, by a link or by an OpenID Connect provider, and out again."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.access import audit
from service.access.errors import NotSignedIn, TooManyRequests
from service.access.gate import address_of
from service.access.oidc import ATTEMPT_LIFETIME_S, Attempt, Provider, ProviderUnavailable, keep_person
from service.access.principal import Credential, Principal
from service.access.refusals import SIGN_IN, own_address
from service.access.scopes import AccessScope
from service.access.sessions import (
    attempt_of,
    close_session,
    drop_cookie,
    open_session,
    session_id_of,
    set_attempt,
    set_cookie,
)
from service.api.dependencies import get_access, get_server
from service.dashboard.pages import PageRoute, render
from service.errors import NotFound, ServiceError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_OIDC = f"{SIGN_IN}/oidc"
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


@router.get(_OIDC)
def go_to_provider(request: Request, next: _Next = "/") -> Response:
    """To the OpenID Connect provider, with a cookie that tells whoever comes back from there by."""
    attempt = Attempt.new()
    try:
        address = _provider(request).address(attempt, back_to=_callback(request))
    except ProviderUnavailable as error:
        return _page(request, next=next, error=error)
    response = RedirectResponse(address, status_code=303, headers={"Cache-Control": "no-store"})
    kept = f"{attempt.secret}.{quote(own_address(next), safe='')}"
    set_attempt(request, response, kept, path=_OIDC, lifetime_s=ATTEMPT_LIFETIME_S)
    return response


@router.get(f"{_OIDC}/callback")
def come_back(
    request: Request,
    state: Annotated[str, Query(max_length=500)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    error: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    access, server, provider = get_access(request), get_server(request), _provider(request)
    secret, _, next = (attempt_of(request) or "").partition(".")
    next, attempt = unquote(next), Attempt(secret)
    try:
        access.refuse_guessing(address_of(request))
        if not secret or not hmac.compare_digest(state.encode(), attempt.state.encode()):
            told = "This began in another browser, or more than ten minutes ago."
            raise _wrong(request, NotSignedIn(told, hint="Sign in once more."))
        if error or not code:
            told = f"The provider signs nobody in: {error or 'no code'}."
            raise _wrong(request, NotSignedIn(told, hint="Sign in once more, or with a token."))
        try:
            person = provider.person(attempt, code, back_to=_callback(request))
        except NotSignedIn as refused:
            raise _wrong(request, refused) from refused
    except (NotSignedIn, TooManyRequests, ProviderUnavailable) as refusal:
        response = _page(request, next=next, error=refusal)
    else:
        token_id = keep_person(server.database, person, lifetime_s=server.settings.session_lifetime_s)
        response = _signed_in(request, token_id, next=next)
    set_attempt(request, response, "", path=_OIDC, lifetime_s=0)
    return response


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    response = RedirectResponse(SIGN_IN, status_code=303)
    session_id = session_id_of(request)
    if session_id is not None:
        close_session(get_server(request).database, session_id)
        get_access(request).authenticator.forget()
        drop_cookie(request, response)
    return response


def _provider(request: Request) -> Provider:
    """Raises `NotFound` where there is none."""
    provider = get_access(request).provider
    if provider is None:
        raise NotFound("There is no OpenID Connect provider.", hint="Set TESSERA_OIDC_ISSUER, or sign in with a token.")
    return provider


def _callback(request: Request) -> str:
    """The address that is registered with the provider. The guard has looked at the Host header that is in it."""
    return f"{request.url.scheme}://{request.headers['host']}{_OIDC}/callback"


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
    provider = get_access(request).provider
    context = {"next": own_address(next), "error": error, "provider": provider.name if provider else None}
    response = render("sign_in.html", context, status=error.status if error else 200, here=SIGN_IN)
    response.headers.update(error.headers if error else {})
    return response
