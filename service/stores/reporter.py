"""`EventSink` on the database: every event becomes a row, and the job reads as its last events say."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

from sqlalchemy import bindparam, func, select, update
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
    """Writes the events of one job, those that come together in one transaction: they are durable when `emit` returns.

    Log events go to standard output too, which is the job's log file. With ``attempt`` only the job's newest attempt is
    listened to (`Superseded`).
    """

    def __init__(self, database: ProjectDatabase, job_id: str, *, attempt: int | None = None) -> None:
        self._database = database
        self._job_id = job_id
        self._attempt = attempt
        self._steps: list[Step] | None = None

    def emit(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, Log):
                print(f"{event.level}: {event.message}", file=sys.stdout, flush=True)
            elif isinstance(event, StageStarted):
                print(f"stage: {event.stage.value}", file=sys.stdout, flush=True)
        with self._database.write() as session:
            if self._attempt is not None:
                queue.require_newest(session, self._job_id, attempt=self._attempt)
            session.add_all(JobEvent(job_id=self._job_id, kind=event.kind, data=event.data()) for event in events)
            self._set(session, heartbeat_at=now())
            for event in events:
                self._apply(event, session)
            if trials := [event for event in events if isinstance(event, TrialMeasured)]:
                self._apply_trials(trials, session)

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
        """Update the job's row; events that only belong into the stream change nothing, trials are `_apply_trials`."""

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

    def _apply_trials(self, trials: Sequence[TrialMeasured], session: Session) -> None:
        # The tuner adds a batch's records and then tells of them in the same order: their numbers agree.
        session.connection().execute(
            update(TrialRecord)
            .where(TrialRecord.job_id == self._job_id, TrialRecord.number == bindparam("of_number"))
            .values(
                task=bindparam("of_task"),
                task_best_us=bindparam("of_best_us"),
                estimated_us=bindparam("of_estimated_us"),
            ),
            [
                {
                    "of_number": trial.number,
                    "of_task": trial.task,
                    "of_best_us": trial.task_best_us,
                    "of_estimated_us": trial.estimated_us,
                }
                for trial in trials
            ],
        )
        best: dict[str, dict[str, Any]] = defaultdict(dict)
        for trial in trials:
            if trial.task_best_us is not None:
                best[trial.task]["best_us"] = trial.task_best_us
                if trial.latency_us == trial.task_best_us:
                    best[trial.task]["knobs"] = trial.knobs
        for task, values in best.items():
            self._set_task(session, task, **values)
        estimates = [(trial.number, trial.estimated_us) for trial in trials if trial.estimated_us is not None]
        newest: dict[str, Any] = {"trials_done": trials[-1].number}
        if estimates:
            newest |= {"estimated_us": estimates[-1][1], "convergence": self._improved(estimates, session)}
        self._set(session, **newest)

    def _improved(self, estimates: Sequence[Step], session: Session) -> list[Step]:
        """The steps of the job's convergence with these, each a trial's number and an estimate in µs."""
        if self._steps is None:
            stored = session.scalar(select(Job.convergence).where(Job.id == self._job_id)) or []
            self._steps = [(int(step[0]), float(step[1])) for step in stored]
        for number, estimated_us in estimates:
            self._steps = add_step(self._steps, number, estimated_us)
        return self._steps


def _use(use: Use) -> dict[str, Any]:
    alternative = use.alternative
    return {
        "count": use.count,
        "choice": alternative.choice if alternative else None,
        "way": alternative.way if alternative else None,
    }
