from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.tuner.search.spaces import latency_us, matmul_space
from tuner.cost_model import Samples, XGBCostModel
from tuner.records import FailureKind, Record
from tuner.search.alternatives import Alternative, Use
from tuner.search.features import FEATURES_VERSION, Machine
from tuner.search.loop import Batch, LoopConfig, Outcome, SearchLoop, SearchTask

MACHINE = Machine(threads=2, vector_bits=512)


class NoRanker:
    """Learns nothing: the loop must get by on its prior."""

    def fit(
        self, features: NDArray[np.float32], latency_us: NDArray[np.float64], workloads: NDArray[np.str_]
    ) -> None: ...

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.zeros(len(features))


def task(key: str, *, weight: int = 1, size: int = 256, way: str = "") -> SearchTask:
    return SearchTask(
        key=key,
        workload=key,
        uses=(Use(count=weight, alternative=Alternative(choice="either", way=way) if way else None),),
        flops=2.0 * size**3,
        spaces=[matmul_space(size)],
    )


def outcomes(batch: Batch, *, scale: float = 1.0, failing: float = 0.0, seed: int = 0) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    return [
        Outcome(
            draft=draft,
            latency_us=None if rng.random() < failing else scale * latency_us(batch.task.spaces[draft.space], draft),
            cost_s=0.1,
        )
        for draft in batch.drafts
    ]


def spend(loop: SearchLoop, trials: int, **kinds: float) -> dict[str, int]:
    spent: dict[str, int] = {}
    while trials > 0 and (batch := loop.propose(trials)) is not None:
        loop.observe(batch, outcomes(batch, scale=kinds.get(batch.task.key, 1.0), failing=kinds.get("failing", 0.0)))
        spent[batch.task.key] = spent.get(batch.task.key, 0) + len(batch.drafts)
        trials -= len(batch.drafts)
    return spent


def test_the_ranker_leads_to_the_best_candidate() -> None:
    loop = SearchLoop([task("a")], XGBCostModel(seed=1), machine=MACHINE, seed=1)
    spend(loop, 192)
    assert loop.best_us("a") is not None
    assert (loop.best_us("a") or 0) <= 100.0 * 2**0.4


def test_the_budget_is_never_exceeded() -> None:
    loop = SearchLoop([task("a"), task("b")], NoRanker(), machine=MACHINE, seed=1)
    assert sum(spend(loop, 50).values()) == 50


def test_other_tasks_are_proposed_while_a_first_batch_is_pending() -> None:
    loop = SearchLoop([task("a"), task("b")], NoRanker(), machine=MACHINE, seed=1)
    first, second = loop.propose(100), loop.propose(100)
    assert first is not None
    assert second is not None
    assert {first.task.key, second.task.key} == {"a", "b"}
    assert loop.propose(100) is None
    assert not loop.exhausted
    loop.observe(first, outcomes(first))
    again = loop.propose(100)
    assert again is not None
    assert again.task.key == first.task.key


def test_a_task_that_is_worth_most_is_not_passed_over_while_its_batch_is_pending() -> None:
    loop = SearchLoop([task("heavy", weight=100), task("light")], NoRanker(), machine=MACHINE, seed=1)
    for batch in [loop.propose(100), loop.propose(100)]:
        assert batch is not None
        loop.observe(batch, outcomes(batch))
    pending = loop.propose(100)
    assert pending is not None
    assert pending.task.key == "heavy"
    assert loop.propose(100) is None
    loop.observe(pending, outcomes(pending))
    assert loop.propose(100) is not None


def test_a_budget_smaller_than_the_tasks_goes_to_the_heaviest() -> None:
    tasks = [task("light", size=16), task("heavy", size=256), task("middle", size=64)]
    loop = SearchLoop(tasks, NoRanker(), machine=MACHINE, seed=1)
    assert set(spend(loop, 4)) == {"heavy"}


def test_weight_draws_trials() -> None:
    loop = SearchLoop([task("often", weight=10), task("once")], NoRanker(), machine=MACHINE, seed=1)
    spent = spend(loop, 320)
    assert spent["often"] > 1.5 * spent["once"]


def test_the_slower_way_is_given_up() -> None:
    tasks = [task("slow", way="direct"), task("quick", way="other"), task("rest")]
    loop = SearchLoop(tasks, NoRanker(), machine=MACHINE, seed=1, config=LoopConfig(stop_gain=0.0))
    spent = spend(loop, 400, quick=0.1)
    assert 0 < spent["slow"] < spent["quick"] / 2
    known_us = [loop.best_us(key) or 0.0 for key in ("quick", "rest")]
    assert loop.estimated_us() == pytest.approx(sum(known_us))


def test_failures_are_data() -> None:
    loop = SearchLoop([task("a")], XGBCostModel(seed=1), machine=MACHINE, seed=1)
    assert sum(spend(loop, 96, failing=1.0).values()) == 96
    assert loop.best_us("a") is None
    assert loop.estimated_us() > 0


def test_the_search_ends_when_nothing_is_left_to_gain() -> None:
    loop = SearchLoop([task("a")], NoRanker(), machine=MACHINE, seed=1, config=LoopConfig(stop_gain=0.001))
    assert 0 < sum(spend(loop, 100_000).values()) < 2_000


def test_a_dry_space_ends_the_search() -> None:
    tiny = task("tiny", size=2)
    loop = SearchLoop([tiny], NoRanker(), machine=MACHINE, seed=1, config=LoopConfig(stop_gain=0.0))
    assert sum(spend(loop, 1_000).values()) == tiny.spaces[0].size


def record_of(loop: SearchLoop, batch: Batch, outcome: Outcome) -> Record:
    space = batch.task.spaces[outcome.draft.space]
    decisions = space.decisions(outcome.draft.genome)
    return Record(
        workload=batch.task.workload,
        target_fingerprint="t",
        variant=space.variant,
        decisions=decisions,
        trace=space.trace_json(decisions),
        latency_us=outcome.latency_us,
        failure=None if outcome.latency_us else FailureKind.RUN_ERROR,
        features=tuple(float(x) for x in loop.features(batch.task.key, [outcome.draft])[0]),
        features_version=FEATURES_VERSION,
    )


@pytest.mark.parametrize("failing", [0.0, 0.5])
def test_a_second_job_starts_from_the_first_ones_records(failing: float) -> None:
    first = SearchLoop([task("a")], NoRanker(), machine=MACHINE, seed=1)
    stored, proposed = [], set()
    for _ in range(4):
        batch = first.propose(1_000)
        assert batch is not None
        results = outcomes(batch, failing=failing)
        first.observe(batch, results)
        stored += [record_of(first, batch, outcome) for outcome in results]
        proposed |= {draft.key for draft in batch.drafts}
    second = SearchLoop([task("a")], NoRanker(), machine=MACHINE, seed=2)
    second.recall("a", stored)
    assert second.best_us("a") == first.best_us("a")
    assert second.estimated_us() == first.estimated_us()
    again = second.propose(1_000)
    assert again is not None
    assert not proposed & {draft.key for draft in again.drafts}


def test_records_of_another_rule_set_are_passed_over() -> None:
    loop = SearchLoop([task("a")], NoRanker(), machine=MACHINE, seed=1)
    alien = Record(
        workload="a", target_fingerprint="t", variant="tile-0", decisions=((3, 3),), trace="[]", latency_us=1.0
    )
    loop.recall("a", [alien])
    assert loop.best_us("a") is None


def records_of_a_search(searched: SearchTask) -> list[Record]:
    """What 20 batches of a task leave for later jobs."""
    teacher = SearchLoop([searched], NoRanker(), machine=MACHINE, seed=1, config=LoopConfig(stop_gain=0.0))
    records: list[Record] = []
    for _ in range(20):
        batch = teacher.propose(1_000)
        assert batch is not None
        results = outcomes(batch)
        teacher.observe(batch, results)
        records += [record_of(teacher, batch, outcome) for outcome in results]
    return records


def ranker_of(records: list[Record]) -> XGBCostModel:
    samples, stored = Samples.of(records), XGBCostModel(seed=1)
    stored.fit(samples.features, samples.latency_us, samples.workloads)
    return stored


def test_a_stored_model_has_a_look_at_every_task_with_its_two_favourites() -> None:
    keys = [f"task {number}" for number in range(10)]
    tasks = [task(key, size=128) for key in keys]
    stored = ranker_of(records_of_a_search(task("measured")))
    warm = SearchLoop(tasks, XGBCostModel(seed=1), machine=MACHINE, seed=1, trained=stored)
    cold = SearchLoop(tasks, XGBCostModel(seed=1), machine=MACHINE, seed=1)
    assert spend(warm, 20) == dict.fromkeys(keys, 2)
    assert len(spend(cold, 20)) == 5
    best_us = [warm.best_us(key) for key in keys]
    found_us = [found for key in keys if (found := cold.best_us(key)) is not None]
    assert float(np.median([found for found in best_us if found is not None])) < float(np.median(found_us))


def test_unmeasured_tasks_are_guessed_from_what_their_relatives_taught() -> None:
    unmeasured = task("unmeasured", size=128)
    records = records_of_a_search(task("measured"))

    def guessed_us(loop: SearchLoop) -> float:
        drafts = loop.guesses("unmeasured", 8)
        assert len(drafts) == 8
        return float(np.median([latency_us(unmeasured.spaces[0], draft) for draft in drafts]))

    untaught = SearchLoop([unmeasured], XGBCostModel(seed=1), machine=MACHINE, seed=1)
    taught = SearchLoop([unmeasured], XGBCostModel(seed=1), machine=MACHINE, seed=1)
    taught.learn_from_other_work(records)
    stored = ranker_of(records)
    warm = SearchLoop([unmeasured], XGBCostModel(seed=1), machine=MACHINE, seed=1, trained=stored)
    assert guessed_us(taught) < guessed_us(untaught)
    assert guessed_us(warm) < guessed_us(untaught)
