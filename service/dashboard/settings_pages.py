"""What a service is set to: who may use it, who is told about jobs, and what it keeps."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.access import audit, tokens
from service.access.principal import PROJECT_NAME
from service.access.scopes import AccessScope
from service.api.dependencies import get_access
from service.dashboard.pages import PageRoute, render, services_of
from service.database.base import now
from service.errors import Conflict, Invalid, status_of
from service.queries.storage import storage_use
from service.retention.cleaning import KEPT_VERSIONS, Outdated, delete_outdated, find_outdated
from service.retention.rule import get_retention_days, set_retention_days
from service.schemas.access import TokenCreate, TokenCreated
from service.schemas.webhooks import WebhookCreate, WebhookCreated
from service.webhooks import commands
from service.webhooks.addresses import Reach
from tuner.errors import TesseraError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_SHOWN_DELIVERIES = 10
_SHOWN_CHANGES = 20
_LONGEST_LIFE_DAYS = 3650


@router.get("/settings")
def show_settings(request: Request, days: str = "") -> Response:
    """With ``days`` the page says what a clean-up after so many would delete."""
    if not days.strip():
        return _page(request)
    try:
        return _page(request, days=days, outdated=find_outdated(services_of(request), _whole(days)))
    except Invalid as error:
        return _page(request, days=days, retention_error=error)


@router.post("/settings/retention")
def keep_rule(request: Request, days: Annotated[str, Form(max_length=20)] = "") -> Response:
    set_retention_days(services_of(request).database, _whole(days) if days.strip() else None)
    return RedirectResponse("/settings#retention", status_code=303)


@router.post("/settings/clean-up")
def clean_up(request: Request, days: Annotated[str, Form(max_length=20)] = "") -> Response:
    return _page(request, days=days, cleaned=delete_outdated(services_of(request), _whole(days)))


@router.post("/settings/webhooks")
def add_webhook(request: Request, url: Annotated[str, Form(max_length=2000)] = "") -> Response:
    """The page again, with the new secret: it is not shown a second time."""
    try:
        if len(url.strip()) < 8:
            raise Invalid("No address was given.", code="invalid_webhook", hint="Write an http or https URL.")
        services = services_of(request)
        reach = Reach(services.settings)
        created = commands.create_webhook(services.database, WebhookCreate(url=url.strip()), reach=reach)
    except Invalid as error:
        return _page(request, error=error, url=url)
    return _page(request, created=created)


@router.post("/settings/webhooks/{webhook_id}/test")
def try_webhook(request: Request, webhook_id: str) -> Response:
    commands.try_webhook(services_of(request).database, webhook_id)
    return RedirectResponse("/settings", status_code=303)


@router.post("/settings/webhooks/{webhook_id}/remove")
def remove_webhook(request: Request, webhook_id: str) -> Response:
    commands.delete_webhook(services_of(request).database, webhook_id)
    return RedirectResponse("/settings", status_code=303)


@router.post("/settings/tokens")
def add_token(
    request: Request,
    name: Annotated[str, Form(max_length=100)] = "",
    scope: Annotated[AccessScope, Form()] = AccessScope.READ,
    project: Annotated[str, Form(max_length=40)] = "",
    days: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """The page again, with the token itself: it is not shown a second time."""
    try:
        if not name.strip():
            raise Invalid("The token has no name.", hint="Say who or what it is for, such as ci.")
        expires_in_s = _life_s(days) if days.strip() else None
        if project.strip() and not re.fullmatch(PROJECT_NAME, project.strip()):
            raise Invalid(f"{project!r} is no name of a project.", hint="Up to 40 small letters, digits and hyphens.")
        wanted = TokenCreate(name=name.strip(), scope=scope, project=project.strip() or None, expires_in_s=expires_in_s)
        services = services_of(request)
        made = tokens.create_token(services.database, wanted, own_project=services.project)
    except (Invalid, Conflict) as error:
        return _page(request, token_error=error)
    return _page(request, made=made)


@router.post("/settings/tokens/{token_id}/revoke")
def end_token(request: Request, token_id: str) -> Response:
    tokens.revoke_token(services_of(request).database, token_id)
    get_access(request).authenticator.forget()
    return RedirectResponse("/settings#access", status_code=303)


def _life_s(days: str) -> float:
    whole = _whole(days, code="invalid_request")
    if not 1 <= whole <= _LONGEST_LIFE_DAYS:
        hint = "Leave the days empty for one that does not expire."
        raise Invalid(f"A token lives 1 to {_LONGEST_LIFE_DAYS} days.", hint=hint)
    return whole * 86_400.0


def _whole(days: str, *, code: str = "invalid_retention") -> int:
    try:
        return int(days)
    except ValueError:
        raise Invalid(
            f"{days!r} is no whole number of days.", code=code, hint="Write a number, for instance 90."
        ) from None


def _page(
    request: Request,
    *,
    created: WebhookCreated | None = None,
    error: TesseraError | None = None,
    url: str = "",
    days: str = "",
    outdated: Outdated | None = None,
    cleaned: Outdated | None = None,
    retention_error: TesseraError | None = None,
    made: TokenCreated | None = None,
    token_error: TesseraError | None = None,
) -> Response:
    services = services_of(request)
    webhooks = commands.list_webhooks(services.database)
    known = tokens.list_tokens(services.database)
    context = {
        "webhooks": [
            (each, commands.list_deliveries(services.database, each.id, limit=_SHOWN_DELIVERIES).items)
            for each in webhooks
        ],
        "created": created,
        "error": error,
        "url": url,
        "storage": storage_use(services),
        "rule": get_retention_days(services.database),
        "days": days,
        "outdated": outdated,
        "cleaned": cleaned,
        "retention_error": retention_error,
        "kept_versions": KEPT_VERSIONS,
        "tokens": known,
        "own_project": services.project,
        "divided": len({services.project, *(token.project for token in known)}) > 1,
        "made": made,
        "token_error": token_error,
        "scopes": [scope.value for scope in AccessScope],
        "changes": audit.list_audit(services.database, limit=_SHOWN_CHANGES).items,
        "now": now(),
    }
    wrong = error or retention_error or token_error
    return render("settings.html", context, status=status_of(wrong) if wrong else 200, here="/settings")
