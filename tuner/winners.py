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
# Timings of one candidate differ by this much between minutes on a shared machine.
_NOISE = 1.1
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
    measure: bool = True

    def choose(self, tasks: Sequence[TuningTask]) -> dict[str, Record]:
        """The checked best record of every task that has one, by task key.

        A schedule that fails its check is recorded as failed (`FailureKind.WRONG_RESULT`, mostly), never used again,
        and the next best takes its place.
        """
        chosen: dict[str, Record] = {}
        for task in tasks:
            finalists = self._finalists(task)
            if self.measure:
                finalists = self._rematch(task, finalists)
            for record in finalists:
                failure = self._check(task, record)
                if failure is None:
                    chosen[task.key] = record
                    break
                self.sink.emit(Log(message=f"{task.name}: a schedule was refused: {failure.message}", level="warning"))
                self.store.add([_as_failed(record, failure)])
        return chosen

    def _finalists(self, task: TuningTask) -> list[Record]:
        """The fastest distinct schedules, fastest first, without those that ever failed."""
        seen = self.store.seen(task.workload.key, target_fingerprint=self.target.fingerprint)
        failed = {record.trace for record in seen if record.failure is not None}
        best: dict[str, Record] = {}
        for record in sorted(seen, key=_latency_us):
            if record.trace not in failed:
                best.setdefault(record.trace, record)
        return list(best.values())[:_FINALISTS]

    def _rematch(self, task: TuningTask, finalists: list[Record]) -> list[Record]:
        """The finalists in the order of a new timing side by side, those too far behind to win left where they are."""
        near = [record for record in finalists if _latency_us(record) <= _NOISE * _latency_us(finalists[0])]
        if len(near) < 2:
            return finalists
        built = self.builder.build([self._job(task, record.trace, repacked_weights=True) for record in near])
        pairs = [(record, item) for record, item in zip(near, built, strict=True) if isinstance(item, Built)]
        timed = self.runner.time([item for _, item in pairs], best_us=None)
        for _, item in pairs:
            item.library.unlink(missing_ok=True)
        again = [
            (result.latency_us, record)
            for result, (record, _) in zip(timed, pairs, strict=True)
            if isinstance(result, Timed)
        ]
        return [record for _, record in sorted(again, key=lambda pair: pair[0])] + finalists[len(near) :]

    def _check(self, task: TuningTask, record: Record) -> Failure | None:
        """Compare a schedule with the unscheduled function on random inputs; None when they agree."""
        built = self.builder.build([self._job(task, trace, repacked_weights=False) for trace in (record.trace, None)])
        libraries = [item for item in built if isinstance(item, Built)]
        try:
            for item in built:
                if isinstance(item, Failure):
                    return item
            answer = self.runner.agreement(*libraries, seed=self.seed)
        finally:
            for library in libraries:
                library.library.unlink(missing_ok=True)
        if isinstance(answer, Failure):
            return answer
        if answer.max_rel_error <= _MAX_REL_ERROR:  # False for NaN too
            return None
        message = f"max |y − r| / max |r| is {answer.max_rel_error:.2g} against the unscheduled function"
        return Failure(kind=FailureKind.WRONG_RESULT, message=message)

    def _job(self, task: TuningTask, trace: str | None, *, repacked_weights: bool) -> BuildJob:
        output = new_library(self.scratch)
        return BuildJob(task=task.source, trace_json=trace, output=output, repacked_weights=repacked_weights)


def _latency_us(record: Record) -> float:
    return record.latency_us if record.latency_us is not None else np.inf


def _as_failed(record: Record, failure: Failure) -> Record:
    return replace(
        record, latency_us=None, spread_us=None, failure=failure.kind, failure_message=failure.message, cost_s=0.0
    )
