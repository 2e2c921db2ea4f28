"""Schedules of related tasks: what was fast for another task with the same anchor is worth trying first here.

Two convolutions with the same extents and different epilogues are different workloads, but a decision means the same in
both. Related is a task whose decisions give the same features here (tile products, footprints, reuse): then its anchor
block has the same extents and accesses, and no module needs to be loaded to find out.

Chains are related stage by stage: two blocks that are computed together have the stages of each alone, and of its tiles
the best are known sooner, since there are fewer of them to search. The same chain in tiles has the same stages in
shorter rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace, RowStage
from tuner.search.draft import Draft
from tuner.search.features import TASK_COLUMNS, Featurizer

KEPT = 4
"""Schedules of each related task, the fastest ones: they are tried in its first batch."""


@dataclass(frozen=True, kw_only=True)
class StageTiles:
    """How one stage of a chain is tiled; equal ``stage`` mean that the same tiles are as good, and possible where the
    rows have as many ``columns``."""

    stage: tuple[object, ...]
    columns: int
    pixels: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A schedule of some task: its decisions, features there and latency, and of a chain the tiles of its stages."""

    variant: str
    decisions: tuple[tuple[int, ...], ...]
    features: NDArray[np.float32]
    latency_us: float
    tiles: tuple[StageTiles, ...] = ()


def stage_tiles(space: DecisionSpace, decisions: tuple[tuple[int, ...], ...]) -> tuple[StageTiles, ...]:
    """The stages of a chain's schedule; none for everything else."""
    return tuple(
        StageTiles(
            stage=_identity(space, stage),
            columns=_extent(space, stage.pixels),
            pixels=decisions[stage.pixels],
            channels=decisions[stage.channels],
        )
        for stage in space.stages
    )


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


def assembled_drafts(tasks: Iterable[Sequence[Measured]], spaces: Sequence[DecisionSpace]) -> list[Draft]:
    """Schedules of chains put together from the fastest ones of other chains with the same stages: first with the best
    of each stage, then with the second best, and so on. None where a stage is in no other chain.

    Where a stage is known in rows of other lengths only, its register tiles are as near to the known ones as its own
    rows allow."""
    if not any(space.stages for space in spaces):
        return []
    known: dict[tuple[object, ...], list[StageTiles]] = {}
    # Shorter chains first: their tiles were searched more thoroughly.
    chains = sorted((schedules for schedules in tasks if schedules), key=lambda schedules: len(schedules[0].tiles))
    for rank in zip_longest(*chains):
        for schedule in rank:
            for tiles in schedule.tiles if schedule is not None else ():
                each = known.setdefault(tiles.stage, [])
                if tiles not in each:
                    each.append(tiles)
    drafts = []
    for index, space in enumerate(spaces):
        by_stage = [(stage, _fitting(space, stage, known.get(_identity(space, stage), []))) for stage in space.stages]
        if not by_stage or not all(tiles for _, tiles in by_stage):
            continue
        for place in range(min(KEPT, max(len(tiles) for _, tiles in by_stage))):
            decisions: list[tuple[int, ...]] = [()] * len(space.genes)
            for stage, tiles in by_stage:
                chosen = tiles[min(place, len(tiles) - 1)]
                decisions[stage.pixels], decisions[stage.channels] = chosen.pixels, chosen.channels
            genome = space.genome(tuple(decisions))
            if genome is not None:
                drafts.append(Draft(space=index, genome=genome))
    return drafts


def _fitting(space: DecisionSpace, stage: RowStage, tiles: Sequence[StageTiles]) -> list[StageTiles]:
    """Those of rows as long as this stage's; where there are none, all of them with the nearest register tile."""
    columns, factorizations = _extent(space, stage.pixels), space.genes[stage.pixels].table
    if same := [each for each in tiles if each.columns == columns]:
        return same
    nearest = []
    for each in tiles:
        distance = np.abs(np.log(factorizations[:, -1] / each.pixels[-1]))
        pixels = tuple(int(factor) for factor in factorizations[int(np.argmin(distance))])
        nearest.append(replace(each, columns=columns, pixels=pixels))
    return list(dict.fromkeys(nearest))


def _identity(space: DecisionSpace, stage: RowStage) -> tuple[object, ...]:
    columns = _extent(space, stage.pixels)
    return (_extent(space, stage.channels), stage.work / columns, stage.mixes_channels)


def _extent(space: DecisionSpace, gene: int) -> int:
    return int(np.prod(space.genes[gene].table[0]))


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
