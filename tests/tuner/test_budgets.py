"""Budgets of trials and of time, what is left of them, and the machine's drift meanwhile, on fakes and a fake clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.scripted import SMALL, Bench, FakeClock, StepSink
from tuner.events import DriftMeasured, Event, Progress
from tuner.outlook import Outlook
from tuner.request import Budget
from tuner.search.loop import LoopConfig


def reported_s(bench: Bench) -> list[float]:
    """The fake clock at every progress report, from the start of the search."""
    return [at for at, event in zip(bench.sink.at_s, bench.sink.events, strict=True) if isinstance(event, Progress)]


class ClockedSink(StepSink):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.at_s: list[float] = []
        self._clock, self._started = clock, clock.now_s

    def emit(self, *events: Event) -> None:
        self.at_s += [self._clock.now_s - self._started] * len(events)
        super().emit(*events)


def clocked(tmp_path: Path, **changes: object) -> Bench:
    clock = FakeClock()
    return Bench(scratch=tmp_path, clock=clock, sink=ClockedSink(clock), **changes)


@pytest.mark.parametrize("trials", [None, 1000])
def test_a_time_limit_ends_the_search_after_the_batch_that_reaches_it(tmp_path: Path, trials: int | None) -> None:
    bench = clocked(tmp_path, config=SMALL)
    summary = bench.tuning().run(Budget(trials=trials, time_limit_s=10.0))
    assert summary.ended_by == "time"
    *_, before_last, last, ended = reported_s(bench)
    assert before_last < 10.0 <= last <= ended
    assert summary.trials == len(bench.store.own()) == len(bench.builder.proposed)
    # 0.15 s a trial by the fakes, and the reference kernel twice
    assert summary.seconds == pytest.approx(summary.trials * 0.15 + 0.2)


def test_of_two_budgets_the_trials_may_end_first(tmp_path: Path) -> None:
    bench = clocked(tmp_path, config=SMALL)
    summary = bench.tuning().run(Budget(trials=16, time_limit_s=1000.0))
    assert (summary.ended_by, summary.trials) == ("budget", 16)
    assert len(bench.store.own()) == 16


@pytest.mark.parametrize("trials", [1, 3, 5, 47, 50])
def test_no_budget_of_trials_is_exceeded(tmp_path: Path, trials: int) -> None:
    bench = Bench(scratch=tmp_path, names=("a", "b", "c"))
    summary = bench.tuning().run(Budget(trials=trials))
    assert (summary.trials, summary.ended_by) == (trials, "budget")
    assert len(bench.builder.proposed) == trials


def test_progress_counts_what_comes_after_the_search(tmp_path: Path) -> None:
    bench = clocked(tmp_path, config=SMALL)
    summary = bench.tuning(afterwards_s=30.0).run(Budget(trials=40, time_limit_s=1000.0))
    reports = [event for event in bench.sink.events if isinstance(event, Progress)]
    assert reports[0].eta_s == pytest.approx(1030.0), "nothing but the time limit is known yet"
    for spent_s, report in zip(reported_s(bench)[1:-1], reports[1:-1], strict=True):
        trial_s = spent_s / report.trials_done
        assert report.fraction == report.trials_done / 40
        assert report.eta_s == pytest.approx((40 - report.trials_done) * trial_s + 5 * trial_s + 30.0)
    assert reports[-1].fraction == 1.0
    assert reports[-1].eta_s == summary.finishing_s
    assert 30.0 < summary.finishing_s < 33.0


def test_a_search_that_converges_says_so(tmp_path: Path) -> None:
    bench = Bench(scratch=tmp_path, config=LoopConfig(batch=4, first_batch=4, stop_gain=0.03, draft=SMALL.draft))
    summary = bench.tuning().run(Budget(trials=5_000))
    assert summary.ended_by == "converged"
    assert 4 < summary.trials < 500
    assert [event for event in bench.sink.events if isinstance(event, Progress)][-1].fraction == 1.0


def test_a_search_that_has_tried_everything_says_so(tmp_path: Path) -> None:
    bench = Bench(scratch=tmp_path, size=2)
    summary = bench.tuning().run(Budget(trials=5_000))
    assert summary.ended_by == "exhausted"
    assert summary.trials == bench.space.size == len({record.decisions for record in bench.store.own()})


def test_nothing_to_search_is_exhausted_at_once(tmp_path: Path) -> None:
    summary = Bench(scratch=tmp_path, names=()).tuning().run(Budget(trials=10))
    assert (summary.ended_by, summary.trials) == ("exhausted", 0)


def test_drift_is_told_while_the_search_runs_and_summed_up(tmp_path: Path) -> None:
    bench = clocked(tmp_path, config=SMALL)
    started = bench.clock.now_s
    bench.runner.slowness = lambda: 1.25 if 40 < bench.clock.now_s - started < 80 else 1.0
    summary = bench.tuning().run(Budget(trials=None, time_limit_s=120.0))
    told = [event for event in bench.sink.events if isinstance(event, DriftMeasured)]
    assert 4 <= len(told) <= 7
    assert told[0].drift == 1.0
    assert told[-1].drift == summary.drift == pytest.approx(1.25)
    assert summary.noise == 0.0
    assert [event.timings for event in told] == list(range(1, len(told) + 1))
    assert max(event.latency_us for event in told) / min(event.latency_us for event in told) == pytest.approx(1.25)
    assert list(tmp_path.iterdir()) == []


def outlook(budget: Budget, **changes: float) -> Outlook:
    spent = {"trials": 50, "trials_here": 40, "spent_s": 20.0, "winners": 2, "afterwards_s": 30.0}
    return Outlook(budget=budget, **{**spent, **changes})


def test_the_nearer_budget_decides() -> None:
    both = Budget(trials=100, time_limit_s=80.0)
    assert outlook(both).fraction == 0.5
    # 50 trials of half a second, two winners of five trials each, and 30 s
    assert outlook(both).eta_s == 25.0 + 5.0 + 30.0
    hasty = Budget(trials=100, time_limit_s=25.0)
    assert outlook(hasty).fraction == 0.8
    assert outlook(hasty).eta_s == 5.0 + 5.0 + 30.0


def test_a_resumed_job_counts_on_its_own_pace_and_is_silent_before_it_has_one() -> None:
    fresh = outlook(Budget(trials=100), trials_here=0, spent_s=3.0)
    assert fresh.eta_s is None
    assert fresh.fraction == 0.5
    assert fresh.finishing_s == 30.0


def test_overspent_budgets_have_nothing_left() -> None:
    over = outlook(Budget(trials=40, time_limit_s=10.0))
    assert over.fraction == 1.0
    assert over.eta_s == over.finishing_s
