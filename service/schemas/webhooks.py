"""Addresses that are told when a job has ended."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class WebhookCreate(BaseModel):
    """An http or https address that is told when a job has ended."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=8, max_length=2000, description="http or https, without a user name in it")


class WebhookSchema(BaseModel):
    """A webhook, and how many of its messages are waiting, were delivered, and were given up."""

    id: str
    url: str
    created_at: datetime
    pending: int = 0
    delivered: int = 0
    failed: int = 0


class WebhookCreated(WebhookSchema):
    """``secret`` is what messages are signed with. It is not shown again."""

    secret: str


class WebhookDeliverySchema(BaseModel):
    """A message to a webhook. ``status`` (HTTP) and ``error`` are of the last of its ``attempts``; a pending one is
    sent (again) at ``due_at``."""

    id: int
    event: str
    job_id: str | None
    state: str
    attempts: int
    due_at: datetime
    status: int | None
    error: str | None
    created_at: datetime
    ended_at: datetime | None
