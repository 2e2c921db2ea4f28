"""`EventSink` on the database: every event becomes a row, and the job reads as its last events say."""

from __future__ import annotations

import sys
from functools import singledispatchmethod
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.database import ProjectDatabase
from service.database.base import now
from service.database.tables import Job, JobEvent, Task, TrialRecord
from service.jobs import queue
from service.stores.steps import Step, add_step
from tuner.events import (
    BaselineMeasured,
    Event,
    Finished,
    Log,
    Preflight,
    Progress,
    RooflineMeasured,
    StageStarted,
    TaskRecalled,
    TasksExtracted,
    TrialMeasured,
    UntunedTaskMeasured,
)
from tuner.search.alternatives import Use


class JobReporter:
    """Writes the events of one job, each in one transaction: it is durable when `emit` returns.

    Log events go to standard output too, which is the job's log file. With ``attempt`` only the job's newest attempt is
    listened to (`Superseded`).
    """

    def __init__(self, database: ProjectDatabase, job_id: str, *, attempt: int | None = None) -> None:
        self._database = database
        self._job_id = job_id
        self._attempt = attempt
        self._steps: list[Step] | None = None

    def emit(self, event: Event) -> None:
        if isinstance(event, Log):
            print(f"{event.level}: {event.message}", file=sys.stdout, flush=True)
        elif isinstance(event, StageStarted):
            print(f"stage: {event.stage.value}", file=sys.stdout, flush=True)
        with self._database.write() as session:
            if self._attempt is not None:
                queue.require_newest(session, self._job_id, attempt=self._attempt)
            session.add(JobEvent(job_id=self._job_id, kind=event.kind, data=event.data()))
            self._set(session, heartbeat_at=now())
            self._apply(event, session)

    def _set(self, session: Session, **values: Any) -> None:
        session.execute(
            update(Job).where(Job.id == self._job_id).values(**values).execution_options(synchronize_session=False)
        )

    def _set_task(self, session: Session, key: str, **values: Any) -> None:
        session.execute(
            update(Task)
            .where(Task.job_id == self._job_id, Task.key == key)
            .values(**values)
            .execution_options(synchronize_session=False)
        )

    @singledispatchmethod
    def _apply(self, event: Event, session: Session) -> None:
        """Update the job's row; events that only belong into the stream change nothing."""

    @_apply.register
    def _(self, event: StageStarted, session: Session) -> None:
        self._set(session, stage=event.stage.value)

    @_apply.register
    def _(self, event: Preflight, session: Session) -> None:
        self._set(session, preflight=event.report)

    @_apply.register
    def _(self, event: TasksExtracted, session: Session) -> None:
        # A resumed job extracts the same tasks again; what is known of their best stays.
        known = {task.key: task for task in session.scalars(select(Task).where(Task.job_id == self._job_id))}
        for position, summary in enumerate(event.tasks):
            task = known.pop(summary.key, None)
            if task is None:
                task = Task(job_id=self._job_id, key=summary.key, knobs={})
                session.add(task)
            task.position = position
            task.name = summary.name
            task.workload = summary.workload
            task.uses = [_use(use) for use in summary.uses]
            task.flops = summary.flops
            task.traffic_bytes = summary.traffic_bytes
            task.tunable = summary.tunable
        for stale in known.values():
            session.delete(stale)

    @_apply.register
    def _(self, event: TaskRecalled, session: Session) -> None:
        self._set_task(session, event.task, best_us=event.best_us, knobs=event.knobs)

    @_apply.register
    def _(self, event: TrialMeasured, session: Session) -> None:
        # The tuner adds a batch's records and then tells of them in the same order: their numbers agree.
        session.execute(
            update(TrialRecord)
            .where(TrialRecord.job_id == self._job_id, TrialRecord.number == event.number)
            .values(task=event.task, task_best_us=event.task_best_us, estimated_us=event.estimated_us)
            .execution_options(synchronize_session=False)
        )
        values: dict[str, Any] = {"best_us": event.task_best_us}
        if event.latency_us is not None and event.latency_us == event.task_best_us:
            values["knobs"] = event.knobs
        if event.task_best_us is not None:
            self._set_task(session, event.task, **values)
        self._set(
            session,
            trials_done=event.number,
            estimated_us=func.coalesce(event.estimated_us, Job.estimated_us),
        )
        if event.estimated_us is not None:
            self._improve(event.number, event.estimated_us, session)

    def _improve(self, number: int, estimated_us: float, session: Session) -> None:
        if self._steps is None:
            stored = session.scalar(select(Job.convergence).where(Job.id == self._job_id)) or []
            self._steps = [(int(step[0]), float(step[1])) for step in stored]
        steps = add_step(self._steps, number, estimated_us)
        if steps is not self._steps:
            self._steps = steps
            self._set(session, convergence=steps)

    @_apply.register
    def _(self, event: Progress, session: Session) -> None:
        self._set(
            session,
            trials_done=event.trials_done,
            trials_total=func.coalesce(event.trials_total, Job.trials_total),
            fraction=event.fraction,
            eta_s=event.eta_s,
            estimated_us=func.coalesce(event.estimated_us, Job.estimated_us),
        )

    @_apply.register
    def _(self, event: BaselineMeasured, session: Session) -> None:
        self._set(
            session,
            baseline_us=event.latency_us,
            baseline_spread_us=event.spread_us,
            onnxruntime_us=event.onnxruntime_us,
        )

    @_apply.register
    def _(self, event: RooflineMeasured, session: Session) -> None:
        self._set(session, peak_gflops=event.peak_gflops, bandwidth_gb_s=event.bandwidth_gb_s)

    @_apply.register
    def _(self, event: UntunedTaskMeasured, session: Session) -> None:
        self._set_task(session, event.task, untuned_us=event.latency_us)

    @_apply.register
    def _(self, event: Finished, session: Session) -> None:
        best_us = event.tuned_us if event.outcome == "improved" else event.untuned_us
        self._set(
            session,
            result=event.data(),
            best_us=best_us,
            best_spread_us=event.tuned_spread_us if event.outcome == "improved" else None,
            best_measured=best_us is not None,
            baseline_us=func.coalesce(event.untuned_us, Job.baseline_us),
            onnxruntime_us=func.coalesce(event.onnxruntime_us, Job.onnxruntime_us),
            fraction=1.0,
            eta_s=0.0,
        )


def _use(use: Use) -> dict[str, Any]:
    alternative = use.alternative
    return {
        "count": use.count,
        "choice": alternative.choice if alternative else None,
        "way": alternative.way if alternative else None,
    }
