"""What changes a job's state: every function is one transaction, and only along `TRANSITIONS`.

Two processes may race for any of these: the condition on the state inside the UPDATE decides, and the loser is told.
A job's process says of which attempt it is: one that was taken for dead and is not (its machine was cut off, say)
changes nothing any more once the next attempt was claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select, true, tuple_, update
from sqlalchemy.orm import Session

from service.database import Database
from service.database.base import now
from service.database.tables import Job, JobEvent, TrialRecord, Webhook, WebhookDelivery
from service.jobs.states import ACTIVE_STATES, FINAL_STATES, JobState, sources_of
from service.jobs.turns import LAST_TURN

_FIRST_RETRY_DELAY_S = 0.5


class Superseded(Exception):
    """This attempt of a job is not the newest any more, or the job is gone."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job that is to be started now, the number of this attempt, and the target if it is measured on one."""

    job_id: str
    attempt: int
    measured_target: str | None


@dataclass(frozen=True, kw_only=True)
class ActiveJob:
    """A job that has, or had, a process."""

    id: str
    state: JobState
    attempt: int
    stage: str | None
    pid: int | None
    pid_started_at: float | None
    silent_s: float


OwnTarget = tuple[str, str]
"""A project, and the name of a target, which is another one's name in another project."""


def measured_targets(database: Database) -> dict[OwnTarget, dict[str, Any]]:
    """The specifications of the targets that queued jobs are to be measured on."""
    query = select(Job.project, Job.target, Job.target_spec).where(
        Job.state == JobState.QUEUED.value, Job.measure == "device"
    )
    with database.read() as session:
        return {(row.project, row.target): row.target_spec for row in session.execute(query)}


def claim_next(
    database: Database, *, waiting: Mapping[OwnTarget, str] | None = None, paused: str | None = None
) -> Claim | None:
    """Take the job whose turn it is (`service.jobs.turns`) of those that may start; None when there is none. One atomic
    statement: nobody else gets it.

    ``waiting`` says of targets that nothing can measure now what their jobs wait for: those do not start, and tell.
    ``paused`` is what all jobs wait for.
    """
    waiting = waiting or {}
    with database.write() as session:
        if paused is not None:
            _tell_that_all_wait(session, paused)
            return None
        _tell_what_is_waited_for(session, waiting)
        due = (
            select(Job.id)
            .where(
                Job.state == JobState.QUEUED.value,
                or_(Job.not_before.is_(None), Job.not_before <= now()),
                Job.waiting_for.is_(None),
            )
            .order_by(LAST_TURN.nulls_first(), Job.id)
            .limit(1)
            .scalar_subquery()
        )
        claimed = session.execute(
            update(Job)
            .where(Job.id == due, Job.state == JobState.QUEUED.value)
            .values(
                state=JobState.RUNNING.value,
                attempts=Job.attempts + 1,
                started_at=func.coalesce(Job.started_at, now()),
                heartbeat_at=now(),
                pid=None,
                pid_started_at=None,
                records_at_claim=select(func.count())
                .select_from(TrialRecord)
                .where(TrialRecord.job_id == Job.id)
                .scalar_subquery(),
            )
            .returning(Job.id, Job.attempts, Job.target, Job.measure)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if claimed is None:
            return None
        _add_event(session, claimed.id, "state", {"state": JobState.RUNNING.value, "attempts": claimed.attempts})
        return Claim(
            job_id=claimed.id,
            attempt=claimed.attempts,
            measured_target=claimed.target if claimed.measure == "device" else None,
        )


def _tell_that_all_wait(session: Session, reason: str) -> None:
    queued = Job.state == JobState.QUEUED.value
    session.execute(update(Job).where(queued, Job.waiting_for.is_distinct_from(reason)).values(waiting_for=reason))


def _tell_what_is_waited_for(session: Session, waiting: Mapping[OwnTarget, str]) -> None:
    queued = Job.state == JobState.QUEUED.value
    of_those = and_(tuple_(Job.project, Job.target).in_(list(waiting)), Job.measure == "device")
    session.execute(update(Job).where(queued, Job.waiting_for.is_not(None), ~of_those).values(waiting_for=None))
    for (project, target), reason in waiting.items():
        of_target = and_(Job.project == project, Job.target == target, Job.measure == "device")
        session.execute(
            update(Job).where(queued, of_target, Job.waiting_for.is_distinct_from(reason)).values(waiting_for=reason)
        )


def set_process(database: Database, job_id: str, *, pid: int, started_at: float) -> None:
    """Remember the job's process, so that it is found again after a restart."""
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(pid=pid, pid_started_at=started_at))


def beat(database: Database, job_id: str, *, attempt: int) -> JobState | None:
    """Say that the process of an attempt is alive; returns the job's state, None when the job is another attempt's, or
    gone."""
    with database.write() as session:
        mine = update(Job).where(Job.id == job_id, Job.attempts == attempt)
        state = session.scalar(mine.values(heartbeat_at=now()).returning(Job.state))
        return JobState(state) if state else None


def require_newest(session: Session, job_id: str, *, attempt: int) -> None:
    """Raises `Superseded` unless the attempt is the job's newest; until the transaction, which writes, ends it stays
    that."""
    if session.scalar(select(Job.attempts).where(Job.id == job_id)) != attempt:
        raise Superseded


def active_jobs(database: Database) -> list[ActiveJob]:
    """The jobs that are running or being cancelled."""
    query = select(Job.id, Job.state, Job.attempts, Job.stage, Job.pid, Job.pid_started_at, Job.heartbeat_at).where(
        Job.state.in_([state.value for state in ACTIVE_STATES])
    )
    moment = now()
    with database.read() as session:
        return [
            ActiveJob(
                id=row.id,
                state=JobState(row.state),
                attempt=row.attempts,
                stage=row.stage,
                pid=row.pid,
                pid_started_at=row.pid_started_at,
                silent_s=(moment - row.heartbeat_at).total_seconds() if row.heartbeat_at else 0.0,
            )
            for row in session.execute(query)
        ]


def request_cancel(database: Database, job_id: str) -> JobState | None:
    """A waiting job is cancelled at once, a running one is marked for its engine.

    Returns the new state, or None when the job was in a final state already (or is not there).
    """
    with database.write() as session:
        for source, state in ((JobState.QUEUED, JobState.CANCELLED), (JobState.RUNNING, JobState.CANCELLING)):
            if _move(session, job_id, state, sources=frozenset({source})):
                return state
        current = session.scalar(select(Job.state).where(Job.id == job_id))
        return JobState.CANCELLING if current == JobState.CANCELLING else None


def finish(
    database: Database,
    job_id: str,
    state: JobState,
    *,
    attempt: int | None = None,
    outcome: str | None = None,
    error: dict[str, Any] | None = None,
) -> bool:
    """End a job; False when another end (or a cancellation, or another attempt than the one given) was faster."""
    with database.write() as session:
        sources = sources_of(state)
        return _move(session, job_id, state, sources=sources, attempt=attempt, outcome=outcome, error=error)


def requeue(
    database: Database,
    job_id: str,
    *,
    reason: str,
    attempt: int | None = None,
    crash: str | None = None,
    barren_attempts: int = 0,
    after_s: float = 0.0,
) -> bool:
    """Put a job whose process ended back into the queue: later each time that it got nowhere, and not before
    ``after_s``."""
    delay_s = max(after_s, _FIRST_RETRY_DELAY_S * 2 ** (barren_attempts - 1) if barren_attempts else 0.0)
    with database.write() as session:
        moved = _move(
            session,
            job_id,
            JobState.QUEUED,
            sources=frozenset({JobState.RUNNING}),
            attempt=attempt,
            not_before=now() + timedelta(seconds=delay_s),
            barren_attempts=barren_attempts,
            crash=crash,
            pid=None,
            pid_started_at=None,
            eta_s=None,
        )
        if moved:
            _add_event(session, job_id, "log", {"level": "warning", "message": reason})
        return moved


def _move(
    session: Session,
    job_id: str,
    state: JobState,
    *,
    sources: frozenset[JobState],
    attempt: int | None = None,
    **values: Any,
) -> bool:
    """The one place where ``state`` changes. None values of outcome and error leave those columns as they are."""
    assert sources <= sources_of(state)
    values = {name: value for name, value in values.items() if value is not None or name not in ("outcome", "error")}
    if state in FINAL_STATES:
        values |= {"finished_at": now(), "eta_s": None, "pid": None, "pid_started_at": None}
    newest = Job.attempts == attempt if attempt is not None else true()
    moved = session.scalar(
        update(Job)
        .where(Job.id == job_id, Job.state.in_([source.value for source in sources]), newest)
        .values(state=state.value, **values)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if moved is None:
        return False
    told: dict[str, Any] = {"state": state.value}
    told |= {name: values[name] for name in ("outcome", "error") if name in values}
    _add_event(session, job_id, "state", told)
    if state in FINAL_STATES:
        # In the same transaction as the end itself: what was to be told is told, whatever dies next.
        session.add_all(
            WebhookDelivery(webhook_id=webhook_id, job_id=job_id, event="job.ended")
            for webhook_id in session.scalars(
                select(Webhook.id).join(Job, Job.project == Webhook.project).where(Job.id == job_id)
            )
        )
    return True


def _add_event(session: Session, job_id: str, kind: str, data: dict[str, Any]) -> None:
    session.add(JobEvent(job_id=job_id, kind=kind, data=data))
    session.flush()
