"""Reading records for people: what was measured on a target."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from service.database import ProjectDatabase
from service.database.tables import RecordCount, TrialRecord, Workload
from service.paging import decode_cursor, encode_cursor
from service.schemas.pages import Page


class Which(StrEnum):
    """Which records of a workload are listed."""

    ALL = "all"
    FASTEST = "fastest"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class ShownRecord:
    """A record with the name of its workload; ``job_id`` is None where the job is gone, or it was imported."""

    id: int
    workload: str
    name: str
    flops: float
    job_id: str | None
    latency_us: float | None
    spread_us: float | None
    failure: str | None
    failure_message: str
    knobs: dict[str, Any]
    created_at: datetime

    @property
    def gflops(self) -> float | None:
        return self.flops / self.latency_us / 1e3 if self.latency_us and self.flops else None


def list_records(
    database: ProjectDatabase,
    *,
    target_fingerprint: str,
    search: str | None = None,
    which: Which = Which.ALL,
    cursor: str | None = None,
    limit: int = 100,
) -> Page[ShownRecord]:
    """Records of a target, the newest first; ``search`` is for a part of the workload's name."""
    columns: list[InstrumentedAttribute[Any]] = [
        TrialRecord.id,
        TrialRecord.workload,
        TrialRecord.job_id,
        TrialRecord.latency_us,
        TrialRecord.spread_us,
        TrialRecord.failure,
        TrialRecord.failure_message,
        TrialRecord.knobs,
        TrialRecord.created_at,
    ]
    query = select(*columns).where(TrialRecord.target_fingerprint == target_fingerprint)
    if search:
        named = select(Workload.key).where(Workload.name.icontains(search, autoescape=True))
        query = query.where(TrialRecord.workload.in_(named))
    if which is Which.FAILED:
        query = query.where(TrialRecord.failure.is_not(None))
    elif which is Which.FASTEST:
        query = query.where(TrialRecord.id.in_(_fastest(target_fingerprint)))
    if cursor:
        query = query.where(TrialRecord.id < decode_cursor(cursor, int)[0])
    # Names are looked up for the page alone: joined before, SQLite would read the records of all workloads, and sort.
    page = query.order_by(TrialRecord.id.desc()).limit(limit + 1).subquery()
    shown = select(page, Workload.name, Workload.flops).join(Workload, Workload.key == page.c.workload)
    with database.read() as session:
        rows = [ShownRecord(**row) for row in session.execute(shown.order_by(page.c.id.desc())).mappings()]
    items = rows[:limit]
    return Page(items=items, next_cursor=encode_cursor(items[-1].id) if len(rows) > limit else None)


def _fastest(target_fingerprint: str) -> Select[tuple[int]]:
    """The fastest record of each workload on a target; the first of several that are equal."""
    record = aliased(TrialRecord)
    first = (
        select(record.id)
        .where(
            record.workload == RecordCount.workload,
            record.target_fingerprint == target_fingerprint,
            record.latency_us.is_not(None),
        )
        .order_by(record.latency_us, record.id)
        .limit(1)
        .scalar_subquery()
    )
    return select(first).where(RecordCount.target_fingerprint == target_fingerprint)


def count_records(database: ProjectDatabase, *, target_fingerprint: str) -> tuple[int, int, int]:
    """How many records a target has, how many of them are failures, and of how many workloads they are."""
    measured, failed = (func.coalesce(func.sum(column), 0) for column in (RecordCount.measured, RecordCount.failed))
    query = select(measured, failed, func.count()).where(RecordCount.target_fingerprint == target_fingerprint)
    with database.read() as session:
        done, failures, workloads = session.execute(query).one()
    return int(done) + int(failures), int(failures), int(workloads)
