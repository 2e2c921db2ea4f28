from __future__ import annotations

import numpy as np

from schedules.decisions import DecisionSpace
from tests.tuner.search.spaces import matmul_space
from tuner.search.draft import Draft
from tuner.search.features import Featurizer, Machine
from tuner.search.relatives import KEPT, Measured, fastest, related_drafts

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
