"""What a job told."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class LogLine(BaseModel):
    """One line of the job's log; ``id`` is its event's id."""

    id: int
    time: datetime
    level: str
    message: str


class EventSchema(BaseModel):
    """One event of a job, as the SSE stream sends it (``event: kind``, ``id: id``, ``data: data``)."""

    id: int
    kind: str
    data: dict[str, Any]
    created_at: datetime
