"""Reading jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from service.database import Database, ProjectDatabase
from service.database.tables import Job, JobEvent, Model
from service.errors import NotFound
from service.jobs.states import JobState
from service.jobs.turns import queue_positions
from service.paging import DEFAULT_LIMIT, decode_cursor, encode_cursor
from service.schemas.artifacts import Front, FrontPoint
from service.schemas.events import EventSchema, LogLine
from service.schemas.jobs import (
    JobBaseline,
    JobBest,
    JobBudget,
    JobError,
    JobProgress,
    JobResult,
    JobRoofline,
    JobSchema,
)
from service.schemas.pages import Page


@dataclass(frozen=True, kw_only=True)
class EarlierLimits:
    """The lowest memory limit that a job kept, the most that a refused one said was the least; None: no such job."""

    kept_bytes: int | None = None
    needed_bytes: int | None = None


def list_jobs(
    database: ProjectDatabase,
    *,
    states: Sequence[JobState] = (),
    model_id: str | None = None,
    target: str | None = None,
    search: str | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[JobSchema]:
    """Jobs, newest first; ``search`` is for a part of the model's name, or the beginning of a job's id."""
    query = select(Job, Model.name).join(Model, Model.id == Job.model_id).order_by(Job.id.desc()).limit(limit + 1)
    if states:
        query = query.where(Job.state.in_([state.value for state in states]))
    if model_id:
        query = query.where(Job.model_id == model_id)
    if target:
        query = query.where(Job.target == target)
    if search:
        query = query.where(
            or_(Model.name.icontains(search, autoescape=True), Job.id.istartswith(search, autoescape=True))
        )
    if cursor:
        query = query.where(Job.id < decode_cursor(cursor, str)[0])
    with database.read() as session:
        rows = session.execute(query).all()
    jobs = _schemas(database, [(job, name) for job, name in rows[:limit]])
    return Page(items=jobs, next_cursor=encode_cursor(jobs[-1].id) if len(rows) > limit else None)


def get_job(database: ProjectDatabase, job_id: str) -> JobSchema:
    """One job; raises `NotFound` (``job_not_found``)."""
    with database.read() as session:
        job = find_job(session, job_id)
        name = session.scalar(select(Model.name).where(Model.id == job.model_id)) or ""
    return _schemas(database, [(job, name)])[0]


def get_state(database: Database, job_id: str) -> JobState | None:
    """The job's state; None when the job is gone."""
    with database.read() as session:
        state = session.scalar(select(Job.state).where(Job.id == job_id))
    return JobState(state) if state else None


def find_job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(
            f"There is no job {job_id!r}.", code="job_not_found", hint="List the jobs with: tessera jobs list"
        )
    return job


def targets_of_jobs(database: ProjectDatabase) -> list[str]:
    """The targets that any job is for."""
    with database.read() as session:
        return list(session.scalars(select(Job.target).distinct().order_by(Job.target)))


def fastest_job(database: ProjectDatabase, *, model_id: str) -> JobSchema | None:
    """The job whose bundle is the fastest of those measured end to end, on whatever target."""
    query = select(Job, Model.name).join(Model, Model.id == Job.model_id).where(Job.model_id == model_id)
    query = query.where(Job.state == JobState.SUCCEEDED.value, Job.best_measured, Job.best_us.is_not(None))
    with database.read() as session:
        row = session.execute(query.order_by(Job.best_us, Job.id).limit(1)).first()
    return _schemas(database, [(row[0], row[1])])[0] if row else None


def last_preflight(database: ProjectDatabase, *, model_id: str) -> dict[str, Any] | None:
    """What the newest job of the model that was checked found in it."""
    query = select(Job.preflight).where(Job.model_id == model_id, Job.preflight.is_not(None))
    with database.read() as session:
        return session.scalar(query.order_by(Job.id.desc()).limit(1))


def count_jobs(database: Database, *, model_id: str | None = None) -> dict[JobState, int]:
    """How many jobs are in each state."""
    query = select(Job.state, func.count()).group_by(Job.state)
    if model_id:
        query = query.where(Job.model_id == model_id)
    with database.read() as session:
        counted = session.execute(query).all()
    return dict.fromkeys(JobState, 0) | {JobState(state): count for state, count in counted}


def list_events(
    database: ProjectDatabase, job_id: str, *, after: int = 0, limit: int = 500, kind: str | None = None
) -> list[EventSchema]:
    """Events of a job with an id above ``after``, oldest first. An unknown job has none."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id).limit(limit)
    if kind:
        query = query.where(JobEvent.kind == kind)
    with database.read() as session:
        return [
            EventSchema(id=event.id, kind=event.kind, data=event.data, created_at=event.created_at)
            for event in session.scalars(query)
        ]


def list_log(
    database: ProjectDatabase, job_id: str, *, cursor: str | None = None, limit: int = DEFAULT_LIMIT
) -> Page[LogLine]:
    """The job's log, oldest first."""
    with database.read() as session:
        find_job(session, job_id)
    after = int(decode_cursor(cursor, int)[0]) if cursor else 0
    events = list_events(database, job_id, after=after, limit=limit + 1, kind="log")
    lines = [
        LogLine(
            id=event.id,
            time=event.created_at,
            level=str(event.data.get("level", "info")),
            message=str(event.data.get("message", "")),
        )
        for event in events[:limit]
    ]
    return Page(items=lines, next_cursor=encode_cursor(lines[-1].id) if len(events) > limit else None)


def earlier_limits(
    database: ProjectDatabase, *, model_id: str, target: str, input_shapes: dict[str, list[int]]
) -> EarlierLimits:
    """What came of memory limits in earlier jobs of the same model, target and shapes."""
    query = select(Job.state, Job.memory_limit_bytes, Job.error, Job.input_shapes).where(
        Job.model_id == model_id,
        Job.target == target,
        Job.memory_limit_bytes.is_not(None),
        Job.state.in_([JobState.SUCCEEDED.value, JobState.FAILED.value]),
    )
    kept, needed = list[int](), list[int]()
    with database.read() as session:
        for state, limit_bytes, error, shapes in session.execute(query):
            if shapes != input_shapes:
                continue
            if state == JobState.SUCCEEDED:
                kept.append(limit_bytes)
            elif least_bytes := ((error or {}).get("details") or {}).get("least_bytes"):
                needed.append(int(least_bytes))
    return EarlierLimits(kept_bytes=min(kept, default=None), needed_bytes=max(needed, default=None))


def get_front(database: ProjectDatabase, job_id: str, manifest: dict[str, Any] | None) -> Front:
    """Memory against latency: of the builds that were measured, and what else was possible. ``manifest`` is the job's
    own, if it has one."""
    with database.read() as session:
        job = find_job(session, job_id)
    memory = (manifest or {}).get("memory")
    memory = memory if isinstance(memory, dict) else {}
    points: list[FrontPoint] = []

    def add(name: str, latency_us: float | None, spread_us: float | None, *, shipped: bool) -> None:
        if latency_us is not None:
            points.append(
                FrontPoint(
                    name=name,
                    latency_us=latency_us,
                    spread_us=spread_us,
                    peak_bytes=memory.get("planned_peak_bytes") if shipped else None,
                    measured_peak_bytes=memory.get("measured_peak_bytes") if shipped else None,
                    shipped=shipped,
                )
            )

    add("untuned", job.baseline_us, job.baseline_spread_us, shipped=job.outcome == "no_improvement")
    result = job.result or {}
    add("tuned", result.get("tuned_us"), result.get("tuned_spread_us"), shipped=job.outcome == "improved")
    for point in memory.get("front", []):
        ways = point["ways"]
        points.append(
            FrontPoint(
                name=f"{len(ways)} parts in other ways" if ways else "the usual way throughout",
                latency_us=None,
                estimated_us=point["estimated_us"],
                peak_bytes=point["peak_bytes"],
                ways=ways,
            )
        )
    return Front(job_id=job_id, memory_limit_bytes=job.memory_limit_bytes, points=points)


def _schemas(database: ProjectDatabase, jobs: Sequence[tuple[Job, str]]) -> list[JobSchema]:
    """Jobs with their models' names. A place in the queue is among the jobs of all projects."""
    waiting = any(job.state == JobState.QUEUED for job, _ in jobs)
    positions = queue_positions(database.whole) if waiting else {}
    return [_schema(job, model_name, positions.get(job.id)) for job, model_name in jobs]


def _schema(job: Job, model_name: str, queue_position: int | None) -> JobSchema:
    best_us = job.best_us if job.best_us is not None else job.estimated_us
    return JobSchema(
        id=job.id,
        model_id=job.model_id,
        model_name=model_name,
        target=job.target,
        target_fingerprint=job.target_fingerprint,
        state=JobState(job.state),
        stage=job.stage,
        outcome=job.outcome,
        queue_position=queue_position,
        waiting_for=job.waiting_for if job.state == JobState.QUEUED else None,
        budget=JobBudget(trials=job.trials, time_limit_s=job.time_limit_s),
        memory_limit_bytes=job.memory_limit_bytes,
        input_shapes=job.input_shapes,
        samples=job.samples_id,
        measure=job.measure,
        seed=job.seed,
        attempts=job.attempts,
        submitted_by=job.submitted_by,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        progress=JobProgress(
            trials_done=job.trials_done, trials_total=job.trials_total, fraction=job.fraction, eta_s=job.eta_s
        ),
        best=None
        if best_us is None
        else JobBest(
            latency_us=best_us,
            measured=job.best_measured,
            estimated_us=job.estimated_us,
            spread_us=job.best_spread_us,
        ),
        baseline=None
        if job.baseline_us is None
        else JobBaseline(
            latency_us=job.baseline_us, spread_us=job.baseline_spread_us, onnxruntime_us=job.onnxruntime_us
        ),
        roofline=JobRoofline(peak_gflops=job.peak_gflops, bandwidth_gb_s=job.bandwidth_gb_s)
        if job.peak_gflops and job.bandwidth_gb_s
        else None,
        convergence=job.convergence,
        result=JobResult.model_validate(job.result) if job.result else None,
        preflight=job.preflight,
        error=JobError.model_validate(job.error) if job.error else None,
    )
