"""What is kept, for how long, and what may go."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Retention(BaseModel):
    """After how many ``days`` what ended is deleted; None keeps everything."""

    days: int | None = Field(description="1 to 36500, or null to keep everything")


class CleanUp(BaseModel):
    """Delete now what ended more than ``days`` ago; with ``dry_run`` only say what that is."""

    days: int = Field(description="1 to 36500")
    dry_run: bool = Field(default=False, description="delete nothing, only say what would be")


class KeptSchema(BaseModel):
    """One kind of what is kept; ``size_bytes`` is None where it lies in the database."""

    name: str
    count: int
    size_bytes: int | None = None


class StorageSchema(BaseModel):
    """What is kept, the database's own bytes (None where it is a server's), and what is free beside it."""

    kept: list[KeptSchema]
    database_bytes: int
    free_bytes: int
    retention_days: int | None


class OutdatedSchema(BaseModel):
    """Something outdated; a job's ``size_bytes`` are those of its files."""

    id: str
    name: str
    size_bytes: int


class CleanUpReport(BaseModel):
    """What is outdated, and whether it was deleted."""

    days: int
    deleted: bool
    size_bytes: int
    jobs: list[OutdatedSchema]
    models: list[OutdatedSchema]
    samples: list[OutdatedSchema]
    cost_models: list[OutdatedSchema]
