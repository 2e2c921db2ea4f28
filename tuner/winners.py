"""Choosing the schedule that each task is built with: finalists timed again side by side, then checked numerically.

The search keeps the minimum of few short runs, so its first place is partly luck; and schedule search has shipped wrong
code before (TVM issues 17947, 17935, 13204). No schedule may be used that was not compared with the unscheduled one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tuner.events import Event, EventSink, Log, UntunedTaskMeasured
from tuner.measure.jobs import Agreement, Builder, BuildJob, Built, Failure, Runner, Timed, new_library
from tuner.records import FailureKind, Record, RecordStore, failed_traces
from tuner.search.alternatives import Ways, calls, network_us
from tuner.targets import TargetSpec
from tuner.tuning import TuningTask

# How many finalists a task has, and how often they are timed: more where a task is a noticeable part of the network.
_FINALISTS, _FINALISTS_OF_HEAVY = 4, 8
_ROUNDS, _ROUNDS_OF_HEAVY = 1, 3
_HEAVY_SHARE = 0.01
# How far behind the first a finalist may be: at least what quick code generation and a timing cut short change a
# latency by, at most what timings of one candidate differ by between minutes on a shared machine.
_NEAR_AT_LEAST, _NEAR_AT_MOST = 1.04, 1.1
# After the first round those this far behind the best leave: its timings are the minimum of eight runs side by side.
_STILL_NEAR = 1.03
# Schedules reorder sums: the same bound as end to end (DESIGN's "verified").
_MAX_REL_ERROR = 1e-4


class CheckingRunner(Runner, Protocol):
    """A runner that also compares two libraries on the same inputs."""

    def agreement(self, library: Built, reference: Built, *, seed: int) -> Agreement | Failure: ...


@dataclass(kw_only=True, eq=False)
class Winners:
    """Chooses winners from everything the store knows of a task on a target.

    ``drift`` is how far the machine drifted while it was measured (`TuningSummary`): records within it are level.
    """

    target: TargetSpec
    store: RecordStore
    builder: Builder
    runner: CheckingRunner
    sink: EventSink
    scratch: Path
    seed: int
    measure: bool = True
    drift: float | None = None

    def choose(
        self, tasks: Sequence[TuningTask], ways: Ways, *, known: Mapping[str, Record] | None = None
    ) -> dict[str, Record]:
        """The checked best record of every task that a network with these ways needs and that has one, by task key;
        ``known`` ones are as they were chosen before.

        A schedule that fails its check is recorded as failed (`FailureKind.WRONG_RESULT`, mostly), never used again,
        and the next best takes its place.
        """
        finalists = {task.key: self._finalists(task) for task in tasks if calls(task, ways)}
        measured = [(task, _latency_us(finalists[task.key][0])) for task in tasks if finalists.get(task.key)]
        heavy_us = _HEAVY_SHARE * network_us(measured, ways)
        chosen: dict[str, Record] = {}
        for task, latency_us in measured:
            if known and task.key in known:
                chosen[task.key] = known[task.key]
                continue
            candidates = finalists[task.key]
            if self.measure:
                candidates = self._rematch(task, candidates, heavy=calls(task, ways) * latency_us >= heavy_us)
            winner = self._first_right(task, candidates)
            if winner is not None:
                chosen[task.key] = winner
        return chosen

    def _finalists(self, task: TuningTask) -> list[Record]:
        """The fastest distinct schedules, fastest first, without those that ever failed."""
        seen = self.store.seen(task.workload.key, target_fingerprint=self.target.fingerprint)
        failed = failed_traces(seen)
        best: dict[str, Record] = {}
        for record in sorted(seen, key=_latency_us):
            if record.trace not in failed:
                best.setdefault(record.trace, record)
        return list(best.values())[:_FINALISTS_OF_HEAVY]

    def _rematch(self, task: TuningTask, finalists: list[Record], *, heavy: bool) -> list[Record]:
        """The finalists in the order of a new timing side by side, those too far behind to win left where they are."""
        near_us = float(np.clip(self.drift or np.inf, _NEAR_AT_LEAST, _NEAR_AT_MOST)) * _latency_us(finalists[0])
        near = [record for record in finalists if _latency_us(record) <= near_us]
        near = near[: _FINALISTS_OF_HEAVY if heavy else _FINALISTS]
        if len(near) < 2:
            return finalists
        jobs = [self._job(task, record.trace, repacked_weights=True) for record in near]
        try:
            built = self.builder.build(jobs)
            pairs = [(record, item) for record, item in zip(near, built, strict=True) if isinstance(item, Built)]
            timings_us = self._timings_us([item for _, item in pairs], _ROUNDS_OF_HEAVY if heavy else _ROUNDS)
        finally:
            for job in jobs:
                job.output.unlink(missing_ok=True)
        level, order, noise = ranked(timings_us)
        if level > 1 and noise > 0:
            message = f"{task.name}: the best {level} schedules differ by less than the noise ({noise:.1%})"
            self.sink.emit(Log(message=message))
        return [pairs[index][0] for index in order] + finalists[len(near) :]

    def _timings_us(self, built: list[Built], rounds: int) -> list[list[float]]:
        """The timings of every finalist, one a round that it took part in; none of one that failed."""
        timings_us: list[list[float]] = [[] for _ in built]
        left = list(range(len(built)))
        for _ in range(rounds):
            answers = self.runner.time([built[index] for index in left], best_us=None)
            for index, answer in zip(left, answers, strict=True):
                if isinstance(answer, Timed):
                    timings_us[index].append(answer.latency_us)
                else:
                    timings_us[index].clear()
            timed = [index for index, answer in zip(left, answers, strict=True) if isinstance(answer, Timed)]
            best_us = min((min(timings_us[index]) for index in timed), default=0.0)
            left = [index for index in timed if min(timings_us[index]) <= _STILL_NEAR * best_us]
            if len(left) < 2:
                break
        return timings_us

    def _first_right(self, task: TuningTask, candidates: list[Record]) -> Record | None:
        """The first candidate that computes what the unscheduled function does; the others before it become failures.

        None, with nothing held against any schedule, where the unscheduled function cannot be built.
        """
        for record in candidates:
            jobs = [self._job(task, trace, repacked_weights=False) for trace in (record.trace, None)]
            try:
                scheduled, unscheduled = self.builder.build(jobs)
                if isinstance(unscheduled, Failure):
                    message = f"{task.name}: no schedule can be checked: {unscheduled.message}"
                    self.sink.emit(Log(message=message, level="warning"))
                    return None
                failure = scheduled if isinstance(scheduled, Failure) else self._compared(task, scheduled, unscheduled)
            finally:
                for job in jobs:
                    job.output.unlink(missing_ok=True)
            if failure is None:
                return record
            self.sink.emit(Log(message=f"{task.name}: a schedule was refused: {failure.message}", level="warning"))
            self.store.add([_as_failed(record, failure)])
        return None

    def _compared(self, task: TuningTask, scheduled: Built, unscheduled: Built) -> Failure | None:
        """None when they agree on random inputs. How long the unscheduled one took is told on the way."""
        answer = self.runner.agreement(scheduled, unscheduled, seed=self.seed)
        if isinstance(answer, Failure):
            return answer
        if self.measure:
            self.sink.emit(_untuned(task, answer.reference_us))
        if answer.max_rel_error <= _MAX_REL_ERROR:  # False for NaN too
            return None
        message = f"max |y − r| / max |r| is {answer.max_rel_error:.2g} against the unscheduled function"
        return Failure(kind=FailureKind.WRONG_RESULT, message=message)

    def _job(self, task: TuningTask, trace: str | None, *, repacked_weights: bool) -> BuildJob:
        output = new_library(self.scratch)
        return BuildJob(task=task.source, trace_json=trace, output=output, repacked_weights=repacked_weights)


def ranked(timings_us: Sequence[Sequence[float]]) -> tuple[int, list[int], float]:
    """How many finalists lead level, the order of all that have timings, and the noise (a share).

    Finalists come in the order of their latencies in the search, each with its timings in the rounds that it took part
    in. Those of the last round are compared round by round, so that drift between rounds cancels; the noise is by how
    much the place of one differs between rounds (the median over them). Who is behind the first by no more leads with
    it, and among the leaders the order stays the search's, an independent vote.
    """
    most = max((len(timings) for timings in timings_us), default=0)
    if not most:
        return 0, [], 0.0
    stayed = [index for index, timings in enumerate(timings_us) if len(timings) == most]
    rounds = np.array([timings_us[index] for index in stayed])
    relative = rounds / rounds.mean(axis=0)
    noise = float(np.median(relative.max(axis=1) / relative.min(axis=1))) - 1.0
    place = dict(zip(stayed, np.median(relative, axis=1).tolist(), strict=True))
    leading = [index for index in stayed if place[index] <= (1.0 + noise) * min(place.values())]
    followers = sorted(place.keys() - set(leading), key=lambda index: place[index])
    left = [index for index, timings in enumerate(timings_us) if 0 < len(timings) < most]
    left.sort(key=lambda index: (-len(timings_us[index]), min(timings_us[index])))
    return len(leading), leading + followers + left, noise


def _untuned(task: TuningTask, latency_us: float | None) -> Event:
    if latency_us is None:
        return Log(message=f"{task.name}: the function without a schedule could not be timed", level="warning")
    return UntunedTaskMeasured(task=task.key, latency_us=latency_us)


def _latency_us(record: Record) -> float:
    return record.latency_us if record.latency_us is not None else np.inf


def _as_failed(record: Record, failure: Failure) -> Record:
    return replace(
        record, latency_us=None, spread_us=None, failure=failure.kind, failure_message=failure.message, cost_s=0.0
    )
