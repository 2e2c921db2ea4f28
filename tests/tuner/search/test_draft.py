from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from schedules.decisions import Genomes
from tests.tuner.search.spaces import latency_us, matmul_space
from tuner.search.draft import Draft, Drafter


def flat(space_index: int, genomes: Genomes) -> NDArray[np.float64]:
    return np.zeros(len(genomes))


def test_nothing_is_proposed_twice() -> None:
    drafter = Drafter([matmul_space(16)], seed=1)
    keys = [draft.key for _ in range(10) for draft in drafter.propose(16, flat, exploration=0.5)]
    assert len(keys) == 160
    assert len(set(keys)) == 160


def test_equal_seeds_propose_alike_and_others_do_not() -> None:
    def first(seed: int) -> list[tuple[int, bytes]]:
        return [draft.key for draft in Drafter([matmul_space()], seed=seed).propose(16, flat, exploration=0.5)]

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_a_perfect_scorer_finds_the_best_candidate() -> None:
    space = matmul_space()

    def oracle(space_index: int, genomes: Genomes) -> NDArray[np.float64]:
        return np.array([-np.log2(latency_us(space, Draft(space=0, genome=genome))) for genome in genomes])

    drafts = Drafter([space], seed=1).propose(16, oracle, exploration=0.1)
    assert min(latency_us(space, draft) for draft in drafts) == 100.0


@pytest.mark.parametrize("count", [1, 4])
def test_a_small_cold_batch_still_follows_the_scorer(count: int) -> None:
    space = matmul_space()

    def wants_unroll_64(space_index: int, genomes: Genomes) -> NDArray[np.float64]:
        return np.where(genomes[:, 3] == 2, 1.0, 0.0)

    best = Drafter([space], seed=2).propose(count, wants_unroll_64, exploration=0.5)[0]
    assert best.genome[3] == 2


def test_a_space_runs_dry_and_says_so() -> None:
    space = matmul_space(2)
    drafter = Drafter([space], seed=1)
    proposed = []
    while not drafter.exhausted:
        batch = drafter.propose(16, flat, exploration=0.5)
        assert batch
        proposed += batch
    assert len(proposed) == space.size
    assert drafter.propose(16, flat, exploration=0.5) == []


def test_a_space_without_a_decision_has_one_candidate() -> None:
    whole = matmul_space()
    space = type(whole)(variant="only", instructions=whole.instructions, genes=(), anchor=None)
    drafter = Drafter([space], seed=1)
    assert [draft.genome.tolist() for draft in drafter.propose(16, flat, exploration=0.5)] == [[]]
    assert drafter.exhausted
