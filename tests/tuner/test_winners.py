"""Choosing winners, on fakes: who is timed again, who wins within the noise, and what a wrong result costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.tuner.scripted import TARGET, Bench, ScriptedBuilder, ScriptedRunner
from tuner.events import Log, UntunedTaskMeasured
from tuner.measure.jobs import BuildJob, Built, Decisions, Failure, Timed
from tuner.records import FailureKind, Record
from tuner.tuning import TuningTask
from tuner.winners import Winners, ranked


@dataclass
class Replayed(ScriptedRunner):
    """Gives each schedule its latencies in turn, the last one for ever."""

    latencies_us: dict[Decisions, list[float]] = field(default_factory=dict)

    def _time(self, item: Built) -> Timed | Failure:
        answer = super()._time(item)
        if isinstance(answer, Failure):
            return answer
        script = self.latencies_us[item.decisions]
        found_us = script.pop(0) if len(script) > 1 else script[0]
        return Timed(latency_us=found_us, spread_us=0.0, cost_s=0.0)


class Tournament:
    """Tasks with stored schedules, one for each latency; number 0 is the first."""

    def __init__(self, scratch: Path, *searched_us: float, tasks: tuple[str, ...] = ("matmul",)) -> None:
        self.bench = Bench(scratch=scratch, names=tasks)
        space = self.bench.space
        genomes = space.random(len(searched_us), np.random.default_rng(7))
        self.schedules = [space.decisions(genome) for genome in genomes]
        self.runner = Replayed(space=space, clock=self.bench.clock)
        self.traces = [space.trace_json(decisions) for decisions in self.schedules]
        self.store("matmul", *searched_us)

    def store(self, task: str, *searched_us: float) -> None:
        self.bench.store.add_workload(next(each for each in self.bench.tasks if each.key == task).workload)
        rows = zip(self.schedules, self.traces, searched_us, strict=False)
        self.bench.store.add([self.record(task, *row) for row in rows])

    def record(self, task: str, decisions: Decisions, trace: str, latency_us: float) -> Record:
        return Record(
            workload=task,
            target_fingerprint=TARGET.fingerprint,
            variant=self.bench.space.variant,
            decisions=decisions,
            trace=trace,
            latency_us=latency_us,
        )

    def answer(self, *latencies_us: list[float]) -> None:
        self.runner.latencies_us = dict(zip(self.schedules, latencies_us, strict=True))

    def winners(self, **changes: object) -> Winners:
        return Winners(
            target=TARGET,
            store=self.bench.store,
            builder=self.bench.builder,
            runner=self.runner,
            sink=self.bench.sink,
            scratch=self.bench.scratch,
            seed=1,
            **changes,
        )

    def winner(self, **changes: object) -> int | None:
        chosen = self.winners(**changes).choose(self.bench.tasks[:1], {})
        assert list(self.bench.scratch.iterdir()) == [], "libraries were left behind"
        return self.traces.index(chosen["matmul"].trace) if chosen else None

    @property
    def lines(self) -> list[str]:
        return [event.message for event in self.bench.sink.events if isinstance(event, Log)]


def test_the_faster_of_the_rematch_wins(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0, 103.0)
    tournament.answer([100.0], [90.0], [95.0])
    assert tournament.winner() == 1
    assert tournament.lines == []


def test_within_the_noise_the_search_decides(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0)
    # The second one is ahead in two rounds of three, by less than either changes its place between rounds.
    tournament.answer([101.2, 100.0, 101.2], [100.2, 101.2, 100.2])
    assert tournament.winner() == 0
    assert tournament.lines == ["matmul: the best 2 schedules differ by less than the noise (1.1%)"]


def test_drift_between_rounds_decides_nothing(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0)
    tournament.answer([100.0, 120.0, 140.0], [99.0, 118.8, 138.6])
    assert tournament.winner() == 1
    assert tournament.lines == []


def test_a_finalist_that_is_clearly_behind_leaves_after_a_round(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0, 102.0)
    tournament.answer([100.0], [100.2], [104.0])
    tournament.winner()
    assert [tournament.runner.timed.count(schedule) for schedule in tournament.schedules] == [3, 3, 1]


@pytest.mark.parametrize(("drift", "timed"), [(None, 5), (1.0, 3), (1.06, 4), (1.5, 5)])
def test_the_machines_drift_says_how_far_behind_a_finalist_may_be(
    tmp_path: Path, drift: float | None, timed: int
) -> None:
    tournament = Tournament(tmp_path, 100.0, 102.0, 104.0, 106.0, 110.0, 111.0)
    tournament.answer(*[[100.0]] * 6)
    tournament.winner(drift=drift)
    assert len(set(tournament.runner.timed)) == timed


def test_a_task_that_hardly_matters_has_fewer_finalists_and_one_round(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, *[100.0] * 10, tasks=("matmul", "light"))
    tournament.store("light", *[0.1] * 10)
    tournament.answer(*[[100.0 + index] for index in range(10)])
    tournament.winners().choose(tournament.bench.tasks[:1], {})
    heavy = list(tournament.runner.timed)
    tournament.runner.timed.clear()
    tournament.winners().choose(tournament.bench.tasks, {})
    both = tournament.runner.timed
    assert len(set(heavy)) == 8
    assert len(both) - len(heavy) == 4


def test_a_finalist_that_fails_its_rematch_is_out(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0, 102.0)
    tournament.answer([100.0], [90.0], [95.0])
    tournament.bench.builder.fate = lambda decisions: (
        FailureKind.BUILD_TIMEOUT if decisions == tournament.schedules[1] else None
    )
    assert tournament.winner() == 2
    tournament = Tournament(tmp_path, 100.0, 101.0, 102.0)
    tournament.answer([100.0], [90.0], [95.0])
    tournament.runner.fate = lambda decisions: FailureKind.RUN_TIMEOUT if decisions == tournament.schedules[1] else None
    assert tournament.winner() == 2


@pytest.mark.parametrize("kind", [FailureKind.WRONG_RESULT, FailureKind.RUN_ERROR, FailureKind.RUN_TIMEOUT])
def test_a_wrong_schedule_is_recorded_and_the_next_one_wins(tmp_path: Path, kind: FailureKind) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0)
    tournament.answer([90.0], [95.0])
    tournament.runner.wrong = lambda decisions: kind if decisions == tournament.schedules[0] else None
    assert tournament.winner() == 1
    failed = [record for record in tournament.bench.store.own() if record.failure is not None]
    assert [(record.trace, record.failure) for record in failed] == [(tournament.traces[0], kind)]
    assert "refused" in tournament.lines[0]


class OnlyScheduled(ScriptedBuilder):
    """The unscheduled function cannot be built."""

    def _build(self, job: BuildJob, decisions: Decisions) -> Built | Failure:
        if job.trace_json is None:
            return Failure(kind=FailureKind.BUILD_TIMEOUT, message="naive loops")
        return super()._build(job, decisions)


def test_without_an_unscheduled_function_nothing_is_held_against_a_schedule(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0)
    tournament.answer([100.0], [101.0])
    tournament.bench.builder = OnlyScheduled(space=tournament.bench.space, clock=tournament.bench.clock)
    assert tournament.winner() is None
    assert tournament.lines[-1] == "matmul: no schedule can be checked: naive loops"
    assert all(record.failure is None for record in tournament.bench.store.own())


def test_nothing_is_timed_where_nothing_may_be_measured(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, 101.0)
    assert tournament.winner(measure=False) == 0
    assert tournament.runner.timed == []


def test_a_task_without_records_has_no_winner(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0, tasks=("matmul", "other"))
    tasks: list[TuningTask] = tournament.bench.tasks
    assert tournament.winners().choose(tasks, {}).keys() == {"matmul"}


def test_ranking_of_nothing() -> None:
    assert ranked([]) == (0, [], 0.0)
    assert ranked([[], []]) == (0, [], 0.0)


def test_those_that_stayed_rank_before_those_that_left() -> None:
    # Number 1 left after a round, in a minute in which everything was faster.
    leading, order, _ = ranked([[100.0, 120.0, 120.0], [103.5], [101.0, 121.0, 121.0], []])
    assert leading == 1
    assert order == [0, 2, 1]


def test_the_check_tells_how_long_the_task_takes_without_a_schedule(tmp_path: Path) -> None:
    tournament = Tournament(tmp_path, 100.0)
    tournament.answer([100.0])
    assert tournament.winner() == 0
    told = [event for event in tournament.bench.sink.events if isinstance(event, UntunedTaskMeasured)]
    assert told == [UntunedTaskMeasured(task="matmul", latency_us=1000.0)]


@pytest.mark.parametrize(("measure", "reference_us", "lines"), [(False, 1000.0, 0), (True, None, 1)])
def test_no_latency_is_told_that_was_not_measured_on_the_device(
    tmp_path: Path, measure: bool, reference_us: float | None, lines: int
) -> None:
    tournament = Tournament(tmp_path, 100.0)
    tournament.answer([100.0])
    tournament.runner.reference_us = reference_us
    assert tournament.winner(measure=measure) == 0
    assert not any(isinstance(event, UntunedTaskMeasured) for event in tournament.bench.sink.events)
    assert [line.endswith("could not be timed") for line in tournament.lines] == [True] * lines
