"""Whether the server lives, and whether it is ready."""

from __future__ import annotations

from pydantic import BaseModel


class Health(BaseModel):
    status: str


class ReadyCheck(BaseModel):
    name: str
    ok: bool
    detail: str = ""


class Ready(BaseModel):
    status: str
    checks: list[ReadyCheck]
