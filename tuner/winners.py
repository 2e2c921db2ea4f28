"""Choosing the schedule that each task is built with: finalists timed again side by side, then checked numerically.

The search keeps the minimum of few short runs, so its first place is partly luck; and schedule search has shipped wrong
code before (TVM issues 17947, 17935, 13204). No schedule may be used that was not compared with the unscheduled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tuner.events import EventSink, Log
from tuner.measure.jobs import Agreement, Builder, BuildJob, Built, Failure, Runner, Timed, new_library
from tuner.records import FailureKind, Record, RecordStore
from tuner.targets import TargetSpec
from tuner.tuning import TuningTask

_FINALISTS = 4
# Schedules reorder sums: the same bound as end to end (DESIGN's "verified").
_MAX_REL_ERROR = 1e-4


class CheckingRunner(Runner, Protocol):
    """A runner that also compares two libraries on the same inputs."""

    def agreement(self, library: Built, reference: Built, *, seed: int) -> Agreement | Failure: ...


@dataclass(kw_only=True, eq=False)
class Winners:
    """Chooses winners from everything the store knows of a task on a target."""

    target: TargetSpec
    store: RecordStore
    builder: Builder
    runner: CheckingRunner
    sink: EventSink
    scratch: Path
    seed: int

    def choose(self, tasks: Sequence[TuningTask]) -> dict[str, Record]:
        """The verified best record of every task that has one, by task key. A wrong schedule is recorded as
        `FailureKind.WRONG_RESULT`, never used again, and the next best takes its place."""
        chosen: dict[str, Record] = {}
        for task in tasks:
            finalists = self._finalists(task)
            if len(finalists) > 1:
                finalists = self._rematch(task, finalists)
            for record in finalists:
                problem = self._problem(task, record)
                if problem is None:
                    chosen[task.key] = record
                    break
                self.sink.emit(Log(message=f"{task.name}: a schedule was refused: {problem}", level="warning"))
                self.store.add([_as_wrong(record, problem)])
        return chosen

    def _finalists(self, task: TuningTask) -> list[Record]:
        """The fastest distinct schedules, fastest first, without those that were once wrong."""
        seen = self.store.seen(task.workload.key, target_fingerprint=self.target.fingerprint)
        wrong = {record.trace for record in seen if record.failure is FailureKind.WRONG_RESULT}
        best: dict[str, Record] = {}
        for record in sorted(seen, key=lambda record: record.latency_us or np.inf):
            if record.latency_us is not None and record.trace not in wrong:
                best.setdefault(record.trace, record)
        return list(best.values())[:_FINALISTS]

    def _rematch(self, task: TuningTask, finalists: list[Record]) -> list[Record]:
        """The finalists that still build, in the order of a new timing side by side."""
        built = self.builder.build([self._job(task, record.trace, repacked_weights=True) for record in finalists])
        pairs = [(record, item) for record, item in zip(finalists, built, strict=True) if isinstance(item, Built)]
        timed = self.runner.time([item for _, item in pairs], abort_above_us=None)
        for _, item in pairs:
            item.library.unlink(missing_ok=True)
        again = [
            (result, record) for result, (record, _) in zip(timed, pairs, strict=True) if isinstance(result, Timed)
        ]
        return [record for _, record in sorted(again, key=lambda pair: pair[0].latency_us)]

    def _problem(self, task: TuningTask, record: Record) -> str | None:
        """Why a schedule's results are not the unscheduled function's; None when they are."""
        jobs = [self._job(task, trace, repacked_weights=False) for trace in (record.trace, None)]
        built = self.builder.build(jobs)
        libraries = [item for item in built if isinstance(item, Built)]
        try:
            for item in built:
                if isinstance(item, Failure):
                    return item.message
            answer = self.runner.agreement(*libraries, seed=self.seed)
        finally:
            for library in libraries:
                library.library.unlink(missing_ok=True)
        if isinstance(answer, Failure):
            return answer.message
        if not answer.max_rel_error <= _MAX_REL_ERROR:
            return f"max |y − r| / max |r| is {answer.max_rel_error:.2g} against the unscheduled function"
        return None

    def _job(self, task: TuningTask, trace: str | None, *, repacked_weights: bool) -> BuildJob:
        output = new_library(self.scratch)
        return BuildJob(task=task.source, trace_json=trace, output=output, repacked_weights=repacked_weights)


def _as_wrong(record: Record, problem: str) -> Record:
    return replace(record, latency_us=None, spread_us=None, failure=FailureKind.WRONG_RESULT, failure_message=problem)
