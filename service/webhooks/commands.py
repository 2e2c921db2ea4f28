"""Adding, removing and trying webhooks, and reading what became of their messages."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.database import ProjectDatabase
from service.database.tables import Webhook, WebhookDelivery
from service.errors import Invalid, NotFound
from service.ids import new_id
from service.paging import DEFAULT_LIMIT, decode_cursor, encode_cursor
from service.schemas.pages import Page
from service.schemas.webhooks import WebhookCreate, WebhookCreated, WebhookDeliverySchema, WebhookSchema
from service.webhooks.addresses import Reach

_MOST = 50


def create_webhook(database: ProjectDatabase, request: WebhookCreate, *, reach: Reach) -> WebhookCreated:
    """Add an address; its secret is told this once. Raises `Invalid` (``invalid_webhook``). What a name stands for is
    looked at when it is told something."""
    parts = urlsplit(request.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise Invalid(
            f"{request.url!r} is no address that can be told.",
            code="invalid_webhook",
            hint="Give an http or https URL with a host, and without a user name in it.",
        )
    if not _may_be_reached(parts.hostname, reach):
        raise Invalid(
            f"{parts.hostname} is not on the internet, and in no network that webhooks may reach.",
            code="invalid_webhook",
            hint="Name its network in TESSERA_WEBHOOK_NETWORKS on the server.",
        )
    webhook = Webhook(id=new_id(), url=request.url, secret=secrets.token_hex(32))
    with database.write() as session:
        if (session.scalar(select(func.count()).select_from(Webhook)) or 0) >= _MOST:
            raise Invalid(f"There are {_MOST} webhooks already.", code="invalid_webhook", hint="Remove one first.")
        session.add(webhook)
        session.flush()
        return WebhookCreated(**_schema(session, webhook).model_dump(), secret=webhook.secret)


def list_webhooks(database: ProjectDatabase) -> list[WebhookSchema]:
    """All of them, the oldest first."""
    with database.read() as session:
        return [_schema(session, each) for each in session.scalars(select(Webhook).order_by(Webhook.id))]


def delete_webhook(database: ProjectDatabase, webhook_id: str) -> None:
    """Remove one, with what it was sent; raises `NotFound` (``webhook_not_found``)."""
    with database.write() as session:
        _find(session, webhook_id)
        session.execute(delete(Webhook).where(Webhook.id == webhook_id))


def try_webhook(database: ProjectDatabase, webhook_id: str) -> WebhookDeliverySchema:
    """Send a message without a job (``test``); raises `NotFound`."""
    with database.write() as session:
        _find(session, webhook_id)
        delivery = WebhookDelivery(webhook_id=webhook_id, event="test")
        session.add(delivery)
        session.flush()
        return WebhookDeliverySchema.model_validate(delivery, from_attributes=True)


def list_deliveries(
    database: ProjectDatabase, webhook_id: str, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[WebhookDeliverySchema]:
    """What a webhook was sent, the newest first; raises `NotFound`."""
    query = (
        select(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id)
        .order_by(WebhookDelivery.id.desc())
        .limit(limit + 1)
    )
    if cursor:
        query = query.where(WebhookDelivery.id < decode_cursor(cursor, int)[0])
    with database.read() as session:
        _find(session, webhook_id)
        rows = session.scalars(query).all()
        items = [WebhookDeliverySchema.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id) if len(rows) > limit else None)


def _may_be_reached(host: str, reach: Reach) -> bool:
    try:
        return reach.allows(host)
    except ValueError:
        return True  # a name


def _find(session: Session, webhook_id: str) -> Webhook:
    webhook = session.scalar(select(Webhook).where(Webhook.id == webhook_id))
    if webhook is None:
        raise NotFound(
            f"There is no webhook {webhook_id!r}.", code="webhook_not_found", hint="GET /api/v1/webhooks lists them."
        )
    return webhook


def _schema(session: Session, webhook: Webhook) -> WebhookSchema:
    counted = session.execute(
        select(WebhookDelivery.state, func.count())
        .where(WebhookDelivery.webhook_id == webhook.id)
        .group_by(WebhookDelivery.state)
    ).all()
    counts = {row[0]: row[1] for row in counted}
    return WebhookSchema(
        id=webhook.id,
        url=webhook.url,
        created_at=webhook.created_at,
        **{state: counts.get(state, 0) for state in ("pending", "delivered", "failed")},
    )
