"""/webhooks."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.api.codes import problem_responses
from service.api.dependencies import DEFAULT_PAGE, Cursor, Limit, ServicesDep, WebhookId
from service.schemas.pages import Page
from service.schemas.webhooks import WebhookCreate, WebhookCreated, WebhookDeliverySchema, WebhookSchema
from service.webhooks import commands
from service.webhooks.addresses import Reach

router = APIRouter(tags=["webhooks"])


@router.post(
    "/webhooks",
    status_code=201,
    summary="Add a webhook",
    description="An address that is told when a job has ended. The `secret` that messages are signed with is in this "
    "answer, and in no other.",
    response_description="The webhook with its secret; `Location` is where its deliveries are",
    responses=problem_responses("invalid_webhook"),
)
def create_webhook(request: WebhookCreate, response: Response, services: ServicesDep) -> WebhookCreated:
    created = commands.create_webhook(services.database, request, reach=Reach(services.settings))
    response.headers["Location"] = f"/api/v1/webhooks/{created.id}/deliveries"
    return created


@router.get(
    "/webhooks",
    summary="List webhooks",
    description="The oldest first, each with how many messages wait, were delivered, and were given up.",
    response_description="All webhooks; the list is a single page",
)
def list_webhooks(services: ServicesDep) -> Page[WebhookSchema]:
    return Page(items=commands.list_webhooks(services.database))


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    response_class=Response,
    summary="Remove a webhook",
    description="What it was sent goes with it.",
    response_description="The webhook is gone",
    responses=problem_responses("webhook_not_found"),
)
def delete_webhook(webhook_id: WebhookId, services: ServicesDep) -> None:
    commands.delete_webhook(services.database, webhook_id)


@router.post(
    "/webhooks/{webhook_id}/test",
    status_code=202,
    summary="Send a test message",
    description="A message without a job, which is sent at once.",
    response_description="The delivery, which is pending",
    responses=problem_responses("webhook_not_found"),
)
def try_webhook(webhook_id: WebhookId, services: ServicesDep) -> WebhookDeliverySchema:
    return commands.try_webhook(services.database, webhook_id)


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    summary="List what a webhook was sent",
    description="The newest first: state, attempts, and what the last one was answered.",
    response_description="One page of deliveries",
    responses=problem_responses("webhook_not_found", "invalid_cursor"),
)
def list_deliveries(
    webhook_id: WebhookId, services: ServicesDep, cursor: Cursor = None, limit: Limit = DEFAULT_PAGE
) -> Page[WebhookDeliverySchema]:
    return commands.list_deliveries(services.database, webhook_id, cursor=cursor, limit=limit)
