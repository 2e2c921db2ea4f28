"""Reads that only the job page needs: the trials that improved the network, and where its event stream starts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, or_, select

from service.database import ProjectDatabase
from service.database.tables import JobEvent, TrialRecord

_MOST_STEPS = 500
_LOG_LINES = 500


@dataclass(frozen=True, kw_only=True)
class Step:
    """A trial after which the estimate of the network was lower than after every one before it."""

    number: int
    task: str
    task_best_us: float | None
    estimated_us: float


@dataclass(frozen=True, kw_only=True)
class ShownLine:
    """One line of the log; ``id`` is its event's id."""

    id: int
    level: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ShownDrift:
    """Slowest ÷ fastest timing of one kernel over the search, and by how much two timings side by side differ."""

    drift: float
    noise: float


def improvements(database: ProjectDatabase, job_id: str) -> list[Step]:
    """The steps of the convergence chart, oldest first, at most 500 of them; found by the database."""
    before = func.min(TrialRecord.estimated_us).over(order_by=TrialRecord.number, rows=(None, -1))
    trials = (
        select(
            TrialRecord.number,
            TrialRecord.task,
            TrialRecord.task_best_us,
            TrialRecord.estimated_us,
            before.label("before_us"),
        )
        .where(TrialRecord.job_id == job_id, TrialRecord.estimated_us.is_not(None))
        .subquery()
    )
    query = (
        select(trials.c.number, trials.c.task, trials.c.task_best_us, trials.c.estimated_us)
        .where(or_(trials.c.before_us.is_(None), trials.c.estimated_us < trials.c.before_us))
        .order_by(trials.c.number)
        .limit(_MOST_STEPS)
    )
    with database.read() as session:
        return [Step(**row) for row in session.execute(query).mappings()]


def last_event_id(database: ProjectDatabase, job_id: str) -> int:
    """The id of the job's newest event, 0 when it has none."""
    with database.read() as session:
        return session.scalar(select(func.max(JobEvent.id)).where(JobEvent.job_id == job_id)) or 0


def last_drift(database: ProjectDatabase, job_id: str) -> ShownDrift | None:
    """How steady the machine was so far, None before the search has timed its reference kernel."""
    query = (
        select(JobEvent.data)
        .where(JobEvent.job_id == job_id, JobEvent.kind == "drift")
        .order_by(JobEvent.id.desc())
        .limit(1)
    )
    with database.read() as session:
        data = session.scalar(query)
    return None if data is None else ShownDrift(drift=float(data["drift"]), noise=float(data["noise"]))


def last_log_lines(database: ProjectDatabase, job_id: str) -> list[ShownLine]:
    """The end of the job's log, oldest line first."""
    query = (
        select(JobEvent.id, JobEvent.data)
        .where(JobEvent.job_id == job_id, JobEvent.kind == "log")
        .order_by(JobEvent.id.desc())
        .limit(_LOG_LINES)
    )
    with database.read() as session:
        rows = session.execute(query).all()
    return [
        ShownLine(id=row.id, level=str(row.data.get("level", "info")), message=str(row.data.get("message", "")))
        for row in reversed(rows)
    ]
