"""/webhooks."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.dependencies import DEFAULT_PAGE, Cursor, Limit, ServicesDep, problem_responses
from service.api.schemas import Page, WebhookCreate, WebhookCreated, WebhookDeliverySchema, WebhookSchema
from service.webhooks import commands

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks",
    status_code=201,
    summary="Have an address told when a job has ended",
    description="The `secret` that messages are signed with is in this answer, and in no other.",
    responses=problem_responses(422),
)
def create_webhook(request: WebhookCreate, response: Response, services: ServicesDep) -> WebhookCreated:
    created = commands.create_webhook(services.database, request)
    response.headers["Location"] = f"/api/v1/webhooks/{created.id}/deliveries"
    return created


@router.get("/webhooks", summary="List webhooks")
def list_webhooks(services: ServicesDep) -> Page[WebhookSchema]:
    return Page(items=commands.list_webhooks(services.database))


@router.delete("/webhooks/{webhook_id}", status_code=204, summary="Remove a webhook", responses=problem_responses(404))
def delete_webhook(webhook_id: str, services: ServicesDep) -> None:
    commands.delete_webhook(services.database, webhook_id)


@router.post(
    "/webhooks/{webhook_id}/test", status_code=202, summary="Send a test message", responses=problem_responses(404)
)
def try_webhook(webhook_id: str, services: ServicesDep) -> WebhookDeliverySchema:
    return commands.try_webhook(services.database, webhook_id)


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    summary="What a webhook was sent, the newest first",
    responses=problem_responses(404, 422),
)
def list_deliveries(
    webhook_id: str, services: ServicesDep, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE
) -> Page[WebhookDeliverySchema]:
    return commands.list_deliveries(services.database, webhook_id, cursor=cursor, limit=limit)
