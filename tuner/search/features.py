"""Features of a candidate, from its decisions alone: no replay, microseconds each, the same columns for every task.

One row per candidate. The columns describe what a cache, a vector unit and a thread pool see of a multi-level tiling
(SSRSRS): tile products and buffer footprints per level, vector use, parallel balance, unrolled size, beside the task's
own size. Columns that a space does not have are NaN, which XGBoost treats as missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace, GeneKind, Genomes, RowStage
from tuner.search.draft import Draft
from tuner.search.gpu_prior import gpu_scores
from tuner.search.tiling import FloatMatrix, Tiling, footprint_bytes, tiling

FEATURES_VERSION = 2
# Finite, so that records stay JSON; no logarithm of a size or ratio gets near it.
MISSING = -1024.0

_SPATIAL_AXES, _REDUCTION_AXES, _BUFFERS, _LOCATIONS, _STAGES = 5, 4, 4, 4, 8


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the features need to know of the target."""

    threads: int
    vector_bits: int
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    is_gpu: bool = False

    @property
    def lanes(self) -> int:
        """fp32 lanes of one vector register."""
        return self.vector_bits // 32


def parallel_chunks(tiles: Tiling, machine: Machine, *, jobs_per_core: int = 16) -> FloatMatrix:
    """Into how many chunks the outer loops are split for the threads: loops are fused outermost first while their
    product stays within the bound, as RewriteParallelVectorizeUnroll does."""
    limit = machine.threads * jobs_per_core
    columns = [
        tiles.factors[axis][:, level]
        for level in (0, 1)
        for axis in tiles.spatial
        if tiles.factors[axis].shape[1] > level
    ]
    chunks = np.ones(len(columns[0]))
    open_ = np.ones(len(columns[0]), dtype=bool)
    for column in columns:
        open_ &= chunks * column <= limit
        chunks = np.where(open_, chunks * column, chunks)
    return chunks


def balance(chunks: FloatMatrix, threads: int) -> FloatMatrix:
    """Share of the threads' time that is used when ``chunks`` equal pieces are dealt to them (0 to 1)."""
    return chunks / (np.ceil(chunks / threads) * threads)


class Featurizer:
    """Turns genomes of one task's spaces into feature rows: shape (candidates, `WIDTH`), float32."""

    def __init__(self, spaces: list[DecisionSpace], *, flops: float, machine: Machine) -> None:
        self._spaces = spaces
        self._flops = flops
        self._machine = machine

    def __call__(self, space_index: int, genomes: Genomes) -> NDArray[np.float32]:
        space = self._spaces[space_index]
        count = len(genomes)
        columns: list[FloatMatrix] = [np.full(count, float(space_index)), np.full(count, np.log2(self._flops + 1))]
        columns += self._plain_genes(space, genomes)
        columns += self._tile_columns(space, genomes)
        columns += self._stage_columns(space, genomes)
        return np.stack(columns, axis=1).astype(np.float32)

    def rows(self, drafts: Sequence[Draft]) -> NDArray[np.float32]:
        """The rows of drafts of any of the spaces, in their order: one at a time costs as much as hundreds."""
        rows = np.empty((len(drafts), WIDTH), dtype=np.float32)
        spaces = np.array([draft.space for draft in drafts], dtype=np.int64)
        for index in np.unique(spaces):
            chosen = np.flatnonzero(spaces == index)
            rows[chosen] = self(int(index), np.stack([drafts[int(position)].genome for position in chosen]))
        return rows

    def _plain_genes(self, space: DecisionSpace, genomes: Genomes) -> list[FloatMatrix]:
        categorical = [i for i, gene in enumerate(space.genes) if gene.kind is GeneKind.CATEGORICAL]
        placed = [i for i, gene in enumerate(space.genes) if gene.kind is GeneKind.LOCATION]
        missing = np.full(len(genomes), MISSING)
        unrolls = [np.log2(space.genes[i].values[genomes[:, i]] + 1.0) for i in categorical[:2]]
        loops = [space.genes[i].values[genomes[:, i]].astype(np.float64) for i in placed[:_LOCATIONS]]
        return unrolls + [missing] * (2 - len(unrolls)) + loops + [missing] * (_LOCATIONS - len(loops))

    def _tile_columns(self, space: DecisionSpace, genomes: Genomes) -> list[FloatMatrix]:
        tiles = tiling(space, genomes)
        missing = np.full(len(genomes), MISSING)
        if tiles is None or not tiles.spatial:
            return [missing] * _TILE_COLUMNS
        columns: list[FloatMatrix] = []
        for axes, kept, parts in ((tiles.spatial, _SPATIAL_AXES, 4), (tiles.reduction, _REDUCTION_AXES, 2)):
            innermost_first = axes[::-1][:kept]
            for axis in innermost_first:
                factor = tiles.factors[axis]
                padded = [np.ones(len(factor))] * (parts - factor.shape[1]) + list(factor.T)
                columns += [np.log2(part) for part in padded]
            columns += [missing] * (parts * (kept - len(innermost_first)))
        for level in range(5):
            columns += self._region_columns(space, tiles, level)
        chunks = parallel_chunks(tiles, self._machine)
        columns += [np.log2(chunks), balance(chunks, self._machine.threads)]
        return columns

    def _stage_columns(self, space: DecisionSpace, genomes: Genomes) -> list[FloatMatrix]:
        """Of a chain: what the prior says, and of each stage the register tile and the share of the work."""
        missing = np.full(len(genomes), MISSING)
        if not space.stages:
            return [missing] * (1 + 3 * _STAGES)
        columns = [_chain_scores(space, genomes, self._machine)]
        total = sum(stage.work for stage in space.stages)
        for stage in space.stages[:_STAGES]:
            pixels, channels = _register_tile(space, stage, genomes)
            columns += [np.log2(pixels), np.log2(channels), np.full(len(genomes), stage.work / total)]
        return columns + [missing] * (1 + 3 * _STAGES - len(columns))

    def _region_columns(self, space: DecisionSpace, tiles: Tiling, level: int) -> list[FloatMatrix]:
        assert space.anchor is not None
        region = tiles.region(level)
        ones = np.ones(len(region[0]))
        spatial = np.prod([region[axis] for axis in tiles.spatial], axis=0)
        reduction = np.prod([region[axis] for axis in tiles.reduction], axis=0) if tiles.reduction else ones
        sizes = footprint_bytes(space, region)
        total = sum(sizes, np.zeros_like(ones))
        columns = [np.log2(spatial), np.log2(reduction), np.log2(total)]
        columns += [np.log2(size) for size in sizes[:_BUFFERS]]
        columns += [np.full_like(ones, MISSING)] * (_BUFFERS - len(sizes))
        # Work per byte moved into the region: how much each loaded byte is reused.
        columns.append(np.log2(spatial * reduction) - np.log2(total))
        if level == 0:
            lanes = self._machine.lanes
            vector = region[tiles.spatial[-1]]
            columns += [
                np.minimum(vector, lanes) / lanes,
                (vector % lanes == 0).astype(float),
                np.log2(spatial / lanes),
            ]
        return columns


TASK_COLUMNS = 2
"""The first columns tell the design space and the size of the task; all others follow from anchor and decisions."""
_TILE_COLUMNS = _SPATIAL_AXES * 4 + _REDUCTION_AXES * 2 + 5 * (3 + _BUFFERS + 1) + 3 + 2
WIDTH = TASK_COLUMNS + 2 + _LOCATIONS + _TILE_COLUMNS + 1 + 3 * _STAGES


def analytic_scores(space: DecisionSpace, genomes: Genomes, machine: Machine) -> FloatMatrix:
    """A prior on log2 of the throughput, before anything was measured: full vectors, a register tile that fills the
    register file without spilling, regions that fit their cache, and threads that are all busy."""
    if machine.is_gpu:
        return gpu_scores(space, genomes)
    if space.stages:
        return _chain_scores(space, genomes, machine)
    score = _location_scores(space, genomes)
    tiles = tiling(space, genomes)
    if tiles is None or not tiles.spatial:
        return score
    lanes = machine.lanes
    register_tile = tiles.region(0)
    vector = register_tile[tiles.spatial[-1]]
    registers = np.maximum(np.prod([register_tile[axis] for axis in tiles.spatial], axis=0) / lanes, 1e-3)
    near = sum(footprint_bytes(space, tiles.region(2)), np.zeros(len(genomes)))
    middle = sum(footprint_bytes(space, tiles.region(3)), np.zeros(len(genomes)))
    score = score + _vector_scores(vector, lanes)
    # 6 to 28 accumulators keep two FMA ports busy over their latency and still fit 32 registers.
    score = score - 0.7 * np.maximum(0.0, np.log2(6 / registers)) - 0.7 * np.maximum(0.0, np.log2(registers / 28))
    score = score - 0.5 * np.maximum(0.0, np.log2(near / (0.8 * machine.l1_bytes)))
    score = score - 0.5 * np.maximum(0.0, np.log2(middle / (0.75 * machine.l2_bytes)))
    chunks = parallel_chunks(tiles, machine)
    return score + np.log2(balance(chunks, machine.threads))


def _chain_scores(space: DecisionSpace, genomes: Genomes, machine: Machine) -> FloatMatrix:
    """The prior on a chain: each stage's share of the work at the rate that its register tile allows.

    A convolution's step over one input channel loads a vector of weights for each vector of output channels and a
    number for each pixel, two a cycle, and multiplies all with all, two a cycle too; a depthwise one loads everything
    that it multiplies.
    """
    time, total = np.zeros(len(genomes)), sum(stage.work for stage in space.stages)
    for stage in space.stages:
        pixels, channels = _register_tile(space, stage, genomes)
        vectors = np.ceil(channels / machine.lanes)
        sums = pixels * vectors
        loads = vectors + (pixels if stage.mixes_channels else sums)
        rate = np.minimum(1.0, sums / loads) * np.minimum(1.0, sums / 8) * np.minimum(1.0, 26 / (sums + vectors))
        time += stage.work / total / (rate * np.exp2(_vector_scores(channels, machine.lanes)))
    return -np.log2(time)


def _register_tile(space: DecisionSpace, stage: RowStage, genomes: Genomes) -> tuple[FloatMatrix, FloatMatrix]:
    """Pixels and channels of a stage that are computed at once."""
    pixels, channels = (
        space.genes[position].table[genomes[:, position]][:, -1].astype(np.float64)
        for position in (stage.pixels, stage.channels)
    )
    return pixels, channels


def _location_scores(space: DecisionSpace, genomes: Genomes) -> FloatMatrix:
    """Reductions computed under a loop of their consumer are computed again in every iteration: a softmax whose sum is
    placed so took 520 ms instead of 7 µs."""
    score = np.zeros(len(genomes))
    for position, gene in enumerate(space.genes):
        if gene.kind is GeneKind.LOCATION and gene.reduces:
            score -= 3.0 * (gene.values[genomes[:, position]] != -1)
    return score


def _vector_scores(vector: FloatMatrix, lanes: int) -> FloatMatrix:
    """Whole registers are best. LLVM splits a vector that is no power of two; one that is not even a multiple of eight
    it loads and stores element by element (25 floats: 22 ms where 16 take 1.5)."""
    used = vector / (np.ceil(vector / lanes) * lanes)
    power_of_two = np.log2(vector) % 1 == 0
    penalty = np.where(power_of_two | (vector % lanes == 0), 0.0, np.where(vector % 8 == 0, 0.7, 3.5))
    return np.log2(used) - penalty
