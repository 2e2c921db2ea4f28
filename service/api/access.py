"""/tokens, /sign-in-links and /audit: who may do what, and what they did."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request, Response

from service.access import audit, tokens
from service.access.errors import NotSignedIn
from service.access.refusals import SIGN_IN
from service.access.sign_in_links import LIFETIME_S
from service.api.codes import problem_responses
from service.api.dependencies import DEFAULT_PAGE, AccessDep, Cursor, Limit, PrincipalDep, ServicesDep, TokenId
from service.database.base import now
from service.schemas.access import AuditEntrySchema, SignInLink, TokenCreate, TokenCreated, TokenSchema
from service.schemas.pages import Page

router = APIRouter(tags=["access"])


@router.post(
    "/tokens",
    status_code=201,
    summary="Make a token",
    description="For somebody or something else, who sees what is of its `project`. The `token` itself is in this "
    "answer, and in no other.",
    response_description="The token, with its secret",
    responses=problem_responses("token_exists"),
)
def create_token(request: TokenCreate, services: ServicesDep) -> TokenCreated:
    return tokens.create_token(services.database, request, own_project=services.project)


@router.get(
    "/tokens",
    summary="List tokens",
    description="All of them, of every project, those that were revoked or have expired too, the oldest first.",
    response_description="All tokens; the list is a single page",
)
def list_tokens(services: ServicesDep) -> Page[TokenSchema]:
    return Page(items=tokens.list_tokens(services.database))


@router.delete(
    "/tokens/{token_id}",
    status_code=204,
    response_class=Response,
    summary="Revoke a token",
    description="At once, with the sessions of browsers that signed in with it; event streams end within a second.",
    response_description="The token is no longer good for anything",
    responses=problem_responses("token_not_found"),
)
def revoke_token(token_id: TokenId, services: ServicesDep, access: AccessDep) -> None:
    tokens.revoke_token(services.database, token_id)
    access.authenticator.forget()


@router.post(
    "/sign-in-links",
    status_code=201,
    summary="Make a link that signs a browser in",
    description="With the token of this request, once, within ten minutes.",
    response_description="The link",
)
def create_sign_in_link(request: Request, access: AccessDep, principal: PrincipalDep) -> SignInLink:
    if principal.token_id is None:
        raise NotSignedIn("The proxy signs browsers in here.")
    url = request.url.replace(path=SIGN_IN, query="").include_query_params(code=access.links.make(principal.token_id))
    return SignInLink(url=str(url), expires_at=now() + timedelta(seconds=LIFETIME_S))


@router.get(
    "/audit",
    summary="List changes",
    description="Every change that somebody asked for in any project, also those that were refused, the newest first.",
    response_description="One page of entries",
    responses=problem_responses("invalid_cursor"),
)
def list_audit(services: ServicesDep, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE) -> Page[AuditEntrySchema]:
    return audit.list_audit(services.database, cursor=cursor, limit=limit)
