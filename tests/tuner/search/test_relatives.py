from __future__ import annotations

import numpy as np

from schedules.decisions import DecisionSpace
from tests.tuner.search.spaces import chain_space, matmul_space
from tuner.search.draft import Draft
from tuner.search.features import Featurizer, Machine
from tuner.search.relatives import KEPT, Measured, assembled_drafts, fastest, related_drafts, stage_tiles

MACHINE = Machine(threads=2, vector_bits=512)


def measured(space: DecisionSpace, *, count: int, flops: float = 1e6) -> list[Measured]:
    featurizer = Featurizer([space], flops=flops, machine=MACHINE)
    genomes = space.random(count, np.random.default_rng(5))
    return [
        Measured(variant=space.variant, decisions=space.decisions(genome), features=row, latency_us=float(index))
        for index, (genome, row) in enumerate(zip(genomes, featurizer(0, genomes), strict=True))
    ]


def drafts(tasks: list[list[Measured]], space: DecisionSpace) -> list[Draft]:
    return related_drafts(tasks, [space], Featurizer([space], flops=3e6, machine=MACHINE))


def test_schedules_of_a_task_with_the_same_anchor_are_taken_over() -> None:
    related, here = matmul_space(256), matmul_space(256)
    schedules = measured(related, count=3)
    assert [here.decisions(draft.genome) for draft in drafts([schedules, schedules], here)] == [
        schedule.decisions for schedule in schedules
    ]


def test_a_task_of_another_size_is_not_related() -> None:
    assert drafts([measured(matmul_space(128), count=3)], matmul_space(256)) == []


def test_decisions_that_mean_something_else_here_are_not_taken_over() -> None:
    other = [
        Measured(variant=m.variant, decisions=m.decisions, features=m.features + 1, latency_us=m.latency_us)
        for m in measured(matmul_space(256), count=2)
    ]
    assert drafts([other], matmul_space(256)) == []


def test_only_the_fastest_are_kept() -> None:
    schedules = measured(matmul_space(64), count=9)
    assert [schedule.latency_us for schedule in fastest(schedules[::-1])] == [0.0, 1.0, 2.0, 3.0][:KEPT]


def chain_schedules(space: DecisionSpace, *, count: int) -> list[Measured]:
    schedules = []
    for index, genome in enumerate(space.random(count, np.random.default_rng(7))):
        decisions = space.decisions(genome)
        tiles = stage_tiles(space, decisions)
        features = np.zeros(1, dtype=np.float32)
        schedules.append(
            Measured(
                variant="chain", decisions=decisions, features=features, latency_us=100.0 * (index + 1), tiles=tiles
            )
        )
    return schedules


def test_chains_are_put_together_from_the_stages_of_others() -> None:
    whole = chain_space(24, 144, 24, 96, 32)
    first, second = (chain_schedules(chain_space(*part), count=3) for part in ((24, 144, 24), (24, 96, 32)))
    found = [whole.decisions(draft.genome) for draft in assembled_drafts([first, second], [whole])]
    assert found == [(*one.decisions, *other.decisions) for one, other in zip(first, second, strict=True)]


def test_the_stages_of_shorter_chains_come_first() -> None:
    whole, short = chain_space(24, 144, 24), chain_space(24, 144)
    long, alone = chain_schedules(chain_space(24, 144, 24, 8), count=1), chain_schedules(short, count=1)
    (best, *_) = assembled_drafts([long, alone], [whole])
    assert whole.decisions(best.genome) == (*alone[0].decisions, *long[0].decisions[2:4])


def test_stages_of_shorter_rows_get_the_nearest_tiles() -> None:
    known, tiled = chain_schedules(chain_space(24, 144, 24), count=3), chain_space(24, 144, 24, columns=30)
    found = [tiled.decisions(draft.genome) for draft in assembled_drafts([known], [tiled])]
    assert found
    for decisions, schedule in zip(found, known, strict=False):
        assert decisions[1::2] == schedule.decisions[1::2]
        for (_, here), (_, there) in zip(decisions[::2], schedule.decisions[::2], strict=True):
            assert abs(np.log(here / there)) == min(abs(np.log(factor / there)) for factor in (1, 2, 3, 5, 6, 10))


def test_chains_with_a_stage_of_their_own_are_not_put_together() -> None:
    known = chain_schedules(chain_space(24, 144, 24), count=2)
    assert assembled_drafts([known], [chain_space(24, 144, 32)]) == []
    assert assembled_drafts([known], [chain_space(24, 144, 24, rows=4)]) == []
    assert assembled_drafts([known, []], [matmul_space(64)]) == []
    assert assembled_drafts([], [chain_space(24, 144, 24)]) == []
