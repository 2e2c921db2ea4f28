"""Reading tasks and trials of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from service.database import ProjectDatabase
from service.database.tables import Job, Task, TrialRecord
from service.errors import NotFound
from service.paging import DEFAULT_LIMIT, decode_cursor, encode_cursor
from service.queries.jobs import find_job
from service.schemas.pages import Page
from service.schemas.tasks import TaskSchema, TaskUse, TrialSchema
from tuner.roofline import Roofline
from tuner.search.alternatives import Alternative, Use, calls, choose_ways, most_calls, totals_us


def list_tasks(database: ProjectDatabase, job_id: str) -> list[TaskSchema]:
    """The tasks of a job in the model's order; empty before they are extracted."""
    with database.read() as session:
        job = find_job(session, job_id)
        tasks = session.scalars(select(Task).where(Task.job_id == job_id).order_by(Task.position, Task.key)).all()
        counted = session.execute(
            select(TrialRecord.task, func.count(), func.count(TrialRecord.failure), func.min(TrialRecord.latency_us))
            .where(TrialRecord.job_id == job_id)
            .group_by(TrialRecord.task)
        ).all()
        of_task = {task: (trials, failures, best_us) for task, trials, failures, best_us in counted}
        shown = []
        for task in tasks:
            trials, failures, own_best_us = of_task.get(task.key, (0, 0, None))
            known = [us for us in (task.best_us, own_best_us) if us is not None]
            best_us = min(known) if known else None
            knobs = task.knobs
            if not knobs and best_us is not None:
                # The best came from an earlier job: its record says how it was made.
                knobs = (
                    session.scalar(
                        select(TrialRecord.knobs)
                        .where(
                            TrialRecord.workload == task.workload,
                            TrialRecord.target_fingerprint == job.target_fingerprint,
                            TrialRecord.latency_us.is_not(None),
                        )
                        .order_by(TrialRecord.latency_us)
                        .limit(1)
                    )
                    or {}
                )
            shown.append(
                TaskSchema(
                    key=task.key,
                    name=task.name,
                    workload=task.workload,
                    weight=0,
                    flops=task.flops,
                    traffic_bytes=task.traffic_bytes,
                    tunable=task.tunable,
                    trials=trials,
                    failures=failures,
                    best_us=best_us,
                    knobs=knobs,
                    gflops=task.flops / best_us / 1e3 if best_us and task.flops else None,
                    percent_of_roofline=_percent_of_roofline(job, task, best_us),
                    untuned_us=task.untuned_us,
                    uses=task.uses,
                )
            )
    _share(shown)
    return shown


def _percent_of_roofline(job: Job, task: Task, best_us: float | None) -> float | None:
    """None where one of its figures is missing."""
    if not (job.peak_gflops and job.bandwidth_gb_s and task.flops and task.traffic_bytes and best_us):
        return None
    roofline = Roofline(peak_gflops=job.peak_gflops, bandwidth_gb_s=job.bandwidth_gb_s)
    return roofline.percent(flops=task.flops, traffic_bytes=task.traffic_bytes, latency_us=best_us)


@dataclass(frozen=True)
class _Used:
    uses: tuple[Use, ...]


def _share(tasks: list[TaskSchema]) -> None:
    """Fill in how often the network calls each task, and its part of the latency; a way without a rival is none."""
    known = [(_Used(tuple(_use(use) for use in task.uses)), task) for task in tasks]
    ways = choose_ways((used, task.best_us) for used, task in known)
    rivals = totals_us((used, 0.0) for used, _ in known)
    for used, task in known:
        count = calls(used, ways)
        task.used, task.weight = count > 0, count or most_calls(used.uses)
        names = [None if use.choice is None or len(rivals[use.choice]) < 2 else use.way for use in task.uses]
        task.way = None if None in names else ", ".join(sorted({name for name in names if name})) or None
    measured = [(task, task.weight * task.best_us) for task in tasks if task.used and task.best_us is not None]
    total_us = sum(latency_us for _, latency_us in measured)
    for task, latency_us in measured:
        task.share = latency_us / total_us if total_us else None


def _use(use: TaskUse) -> Use:
    alternative = Alternative(choice=use.choice, way=use.way) if use.choice and use.way else None
    return Use(count=use.count, alternative=alternative)


def measured_knobs(database: ProjectDatabase, job_id: str, task: str) -> list[tuple[dict[str, Any], float]]:
    """Knobs and latency of a task's measured trials, in the order in which they were measured."""
    query = (
        select(TrialRecord.knobs, TrialRecord.latency_us)
        .where(TrialRecord.job_id == job_id, TrialRecord.task == task, TrialRecord.latency_us.is_not(None))
        .order_by(TrialRecord.number)
    )
    with database.read() as session:
        return [(knobs, float(latency_us)) for knobs, latency_us in session.execute(query) if latency_us]


def trial_columns(
    database: ProjectDatabase, job_id: str, *, task: str | None = None, after: int = 0, limit: int
) -> dict[str, list[Any]]:
    """The trials of a job behind number ``after``, oldest first, as a list for each field; latencies to 1 ns."""
    fields = ("number", "task", "failure", "latency_us", "task_best_us", "estimated_us")
    # Of the table, not of the class: rows are then tuples, in half the time.
    stored = TrialRecord.__table__.c
    query = select(*(stored[name] for name in fields)).where(
        stored.project == database.project, stored.job_id == job_id, stored.number > after
    )
    if task:
        query = query.where(stored.task == task)
    with database.read() as session:
        find_job(session, job_id)
        rows = session.execute(query.order_by(stored.number).limit(limit)).all()
    columns: dict[str, list[Any]] = {name: [row[place] for row in rows] for place, name in enumerate(fields)}
    for name in fields[3:]:
        columns[name] = [None if us is None else round(us, 3) for us in columns[name]]
    return columns


def get_trial(database: ProjectDatabase, job_id: str, number: int) -> TrialSchema:
    """One trial; raises `NotFound` (``trial_not_found``)."""
    page = list_trials(database, job_id, cursor=encode_cursor(number - 1), limit=1)
    if not page.items or page.items[0].number != number:
        raise NotFound(
            f"The job has no trial {number}.",
            code="trial_not_found",
            hint="List a job's trials with GET /api/v1/jobs/{id}/trials.",
        )
    return page.items[0]


def list_trials(
    database: ProjectDatabase,
    job_id: str,
    *,
    task: str | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page[TrialSchema]:
    """The trials of a job in the order in which they were measured."""
    query = (
        select(
            TrialRecord.number,
            TrialRecord.task,
            TrialRecord.latency_us,
            TrialRecord.failure,
            TrialRecord.failure_message,
            TrialRecord.knobs,
            TrialRecord.task_best_us,
            TrialRecord.estimated_us,
            TrialRecord.created_at,
        )
        .where(TrialRecord.job_id == job_id)
        .order_by(TrialRecord.number)
        .limit(limit + 1)
    )
    if task:
        query = query.where(TrialRecord.task == task)
    if cursor:
        query = query.where(TrialRecord.number > decode_cursor(cursor, int)[0])
    with database.read() as session:
        find_job(session, job_id)
        rows = session.execute(query).mappings().all()
    trials = [TrialSchema.model_validate(dict(row)) for row in rows[:limit]]
    return Page(items=trials, next_cursor=encode_cursor(trials[-1].number) if len(rows) > limit else None)
