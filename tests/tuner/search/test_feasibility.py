from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tuner.search.spaces import latency_us, matmul_space
from tuner.records import FailureKind, Record
from tuner.search.alternatives import Use
from tuner.search.draft import Draft
from tuner.search.feasibility import Feasibility, Stumps
from tuner.search.features import Machine
from tuner.search.loop import Batch, LoopConfig, Outcome, SearchLoop, SearchTask


class NoRanker:
    """Learns nothing: what is avoided is avoided by doubts alone."""

    def fit(
        self, features: NDArray[np.float32], latency_us: NDArray[np.float64], workloads: NDArray[np.str_]
    ) -> None: ...

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.zeros(len(features))


def search() -> SearchLoop:
    task = SearchTask(key="a", workload="a", uses=(Use(count=1),), flops=2.0 * 256**3, spaces=[matmul_space()])
    machine = Machine(threads=2, vector_bits=512)
    return SearchLoop([task], NoRanker(), machine=machine, seed=1, config=LoopConfig(stop_gain=0.0))


def rows(seed: int, count: int = 200) -> NDArray[np.float32]:
    return np.random.default_rng(seed).integers(0, 8, (count, 5)).astype(np.float32)


def taught(features: NDArray[np.float32], *, failed: NDArray[np.bool_], build_s: float | NDArray = 0.1) -> Feasibility:
    feasibility = Feasibility()
    builds = np.broadcast_to(build_s, len(features))
    for row, fails, seconds in zip(features, failed, builds, strict=True):
        feasibility.note(row, latency_us=None if fails else 100.0, build_s=float(seconds))
    return feasibility


def test_what_fails_is_doubted_and_what_runs_is_not() -> None:
    train, unseen = rows(1), rows(2)
    doubts = taught(train, failed=(train[:, 2] > 4) & (train[:, 0] > 1)).doubts()
    assert doubts is not None
    found, failing = doubts(unseen), (unseen[:, 2] > 4) & (unseen[:, 0] > 1)
    assert (found <= 0).all()
    assert np.median(found[failing]) < -1.5
    assert np.median(found[~failing]) > -0.2


@pytest.mark.parametrize("failures", [0, 3])
def test_a_few_failures_teach_nothing(failures: int) -> None:
    assert taught(rows(1), failed=np.arange(200) < failures).doubts() is None


def test_nothing_but_failures_teaches_nothing() -> None:
    assert taught(rows(1), failed=np.ones(200, dtype=bool)).doubts() is None


def test_equal_trials_give_equal_doubts() -> None:
    train, unseen = rows(1), rows(2)
    first, second = (taught(train, failed=train[:, 1] > 5).doubts() for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first(unseen), second(unseen))


def test_later_successes_unteach() -> None:
    feasibility, train = Feasibility(), rows(1)
    high = train[:, 1] > 5
    for row in train[high][:10]:
        feasibility.note(row, latency_us=None, build_s=0.1)
    for row in train[~high][:50]:
        feasibility.note(row, latency_us=100.0, build_s=0.1)
    before = feasibility.doubts()
    for row in np.tile(train[high], (4, 1)):
        feasibility.note(row, latency_us=100.0, build_s=0.1)
    after = feasibility.doubts()
    assert before is not None
    assert after is not None
    assert after(train[high]).mean() > before(train[high]).mean() / 3


def test_drafts_that_take_long_to_build_come_last() -> None:
    train, unseen = rows(1), rows(2)
    build_s = np.where(train[:, 3] > 5, 3.0, 0.1)
    feasibility = Feasibility()
    for row, seconds in zip(train, build_s, strict=True):
        feasibility.note(row, latency_us=100.0 + seconds, build_s=float(seconds))
    doubts = feasibility.doubts()
    assert doubts is not None
    long = unseen[:, 3] > 5
    assert (doubts(unseen)[long] < -10).all()
    assert (doubts(unseen)[~long] == 0).all()


def test_what_the_best_take_is_not_too_long() -> None:
    train = rows(1)
    feasibility = Feasibility()
    for row in train:
        slow_to_build = row[3] > 5
        feasibility.note(row, latency_us=10.0 if slow_to_build else 100.0, build_s=3.0 if slow_to_build else 0.1)
    assert feasibility.doubts() is None


def test_stumps_fit_steps_and_cope_with_constant_columns() -> None:
    features = rows(3)
    features[:, 4] = -1024.0
    targets = np.where(features[:, 0] > 3, 2.0, -1.0) + (features[:, 1] > 6)
    assert np.abs(Stumps(features, targets).predict(features) - targets).mean() < 0.2
    constant = np.full((10, 3), -1024.0, dtype=np.float32)
    assert Stumps(constant, np.arange(10.0)).predict(constant).tolist() == [4.5] * 10


def fails(draft: Draft) -> bool:
    """Unrolled by 64 with eight or more values in registers: a fifth of the space, neighbours of its best included."""
    space = matmul_space()
    i, j, _, unroll = space.decisions(draft.genome)
    return unroll[0] == 2 and i[3] * j[3] >= 8


def bad_ones(loop: SearchLoop, batches: int, outcome: Callable[[Batch, Draft], Outcome]) -> list[bool]:
    """Of every draft that is proposed, whether it is one of those that fail (or take long, as ``outcome`` says)."""
    found = []
    for _ in range(batches):
        batch = loop.propose(10_000)
        assert batch is not None
        found += [fails(draft) for draft in batch.drafts]
        loop.observe(batch, [outcome(batch, draft) for draft in batch.drafts])
    return found


def failing(batch: Batch, draft: Draft) -> Outcome:
    if fails(draft):
        return Outcome(draft=draft, latency_us=None, cost_s=0.1, failure=FailureKind.BUILD_ERROR)
    return Outcome(draft=draft, latency_us=latency_us(batch.task.spaces[0], draft), cost_s=0.1)


def taking_long(batch: Batch, draft: Draft) -> Outcome:
    build_s = 4.0 if fails(draft) else 0.1
    found_us = latency_us(batch.task.spaces[0], draft)
    return Outcome(draft=draft, latency_us=found_us, cost_s=build_s + 0.1, build_s=build_s)


@pytest.mark.parametrize("outcome", [failing, taking_long])
def test_a_search_learns_to_avoid_them_and_goes_on_trying_some(
    outcome: Callable[[Batch, Draft], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = bad_ones(search(), 24, outcome)
    monkeypatch.setattr(Feasibility, "doubts", lambda self: None)
    careless = bad_ones(search(), 24, outcome)
    early = len(learned) // 2
    assert np.mean(careless[early:]) > 0.1
    assert np.mean(learned[early:]) < 0.5 * np.mean(careless[early:])
    assert any(learned[early:]), "the random share still goes there"


def record(draft: Draft, *, latency_us: float | None, failure: FailureKind | None = None) -> Record:
    space = matmul_space()
    decisions = space.decisions(draft.genome)
    return Record(
        workload="a",
        target_fingerprint="t",
        variant=space.variant,
        decisions=decisions,
        trace=space.trace_json(decisions),
        latency_us=latency_us,
        failure=failure,
        cost_s=0.1,
    )


def test_stored_failures_teach_a_later_job() -> None:
    space, rng = matmul_space(), np.random.default_rng(5)
    drafts = [Draft(space=0, genome=genome) for genome in space.random(300, rng)]
    stored = [
        record(draft, latency_us=None, failure=FailureKind.BUILD_TIMEOUT)
        if fails(draft)
        else record(draft, latency_us=latency_us(space, draft))
        for draft in drafts
    ]
    ignorant = search()
    ignorant.recall("a", [item for item in stored if item.failure is None])
    knowing = search()
    knowing.recall("a", stored)
    assert sum(bad_ones(knowing, 6, failing)) < 0.7 * sum(bad_ones(ignorant, 6, failing))


def test_a_lost_device_says_nothing_of_its_candidates() -> None:
    space, rng = matmul_space(), np.random.default_rng(5)
    drafts = [Draft(space=0, genome=genome) for genome in space.random(40, rng)]
    loop = search()
    loop.recall("a", [record(draft, latency_us=None, failure=FailureKind.DEVICE_LOST) for draft in drafts[:20]])
    loop.recall("a", [record(draft, latency_us=100.0) for draft in drafts[20:]])
    assert loop._states["a"].feasibility.doubts() is None


def test_a_schedule_that_was_found_wrong_is_no_best() -> None:
    space = matmul_space()
    fast, slow = (Draft(space=0, genome=genome) for genome in space.random(2, np.random.default_rng(5)))
    loop = search()
    loop.recall(
        "a",
        [
            record(fast, latency_us=10.0),
            record(slow, latency_us=50.0),
            record(fast, latency_us=None, failure=FailureKind.WRONG_RESULT),
        ],
    )
    assert loop.best_us("a") == 50.0
