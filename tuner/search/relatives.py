"""Schedules of related tasks: what was fast for another task with the same anchor is worth trying first here.

Two convolutions with the same extents and different epilogues are different workloads, but a decision means the same in
both. Related is a task whose decisions give the same features here (tile products, footprints, reuse): then its anchor
block has the same extents and accesses, and no module needs to be loaded to find out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace
from tuner.search.draft import Draft
from tuner.search.features import TASK_COLUMNS, Featurizer

KEPT = 4
"""Schedules of each related task, the fastest ones: they are tried in its first batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A schedule of some task: its decisions, its features there, and its latency."""

    variant: str
    decisions: tuple[tuple[int, ...], ...]
    features: NDArray[np.float32]
    latency_us: float


def fastest(schedules: Iterable[Measured]) -> list[Measured]:
    return sorted(schedules, key=lambda schedule: schedule.latency_us)[:KEPT]


def related_drafts(
    tasks: Iterable[Sequence[Measured]], spaces: Sequence[DecisionSpace], featurizer: Featurizer
) -> list[Draft]:
    """The schedules of those tasks that are related to the task with these spaces, as drafts of it, each once."""
    found: dict[tuple[int, bytes], Draft] = {}
    for schedules in tasks:
        for schedule in schedules:
            draft = _translated(schedule, spaces, featurizer)
            if draft is None:
                break  # its other schedules are not related either
            found.setdefault(draft.key, draft)
    return list(found.values())


def _translated(schedule: Measured, spaces: Sequence[DecisionSpace], featurizer: Featurizer) -> Draft | None:
    by_name = sorted(range(len(spaces)), key=lambda index: spaces[index].variant != schedule.variant)
    for index in by_name:
        genome = spaces[index].genome(schedule.decisions)
        if genome is None:
            continue
        row = featurizer(index, genome[None])[0]
        if np.allclose(row[TASK_COLUMNS:], schedule.features[TASK_COLUMNS:], atol=1e-3):
            return Draft(space=index, genome=genome)
    return None
