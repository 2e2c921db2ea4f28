"""What a service is set to: who is told about jobs, and what it keeps."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.api.schemas import WebhookCreate, WebhookCreated
from service.dashboard.pages import PageRoute, render, services_of
from service.errors import Invalid, status_of
from service.queries.storage import storage_use
from service.retention.cleaning import KEPT_VERSIONS, Outdated, delete_outdated, find_outdated
from service.retention.rule import get_retention_days, set_retention_days
from service.webhooks import commands
from tuner.errors import TesseraError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_SHOWN_DELIVERIES = 10


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
        created = commands.create_webhook(services_of(request).database, WebhookCreate(url=url.strip()))
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


def _whole(days: str) -> int:
    try:
        return int(days)
    except ValueError:
        raise Invalid(
            f"{days!r} is no whole number of days.", code="invalid_retention", hint="Write a number, for instance 90."
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
) -> Response:
    services = services_of(request)
    webhooks = commands.list_webhooks(services.database)
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
    }
    wrong = error or retention_error
    return render("settings.html", context, status=status_of(wrong) if wrong else 200, here="/settings")
