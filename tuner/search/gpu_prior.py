"""What is expected of a tiling on a GPU before anything was measured there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace, GeneKind, Genomes
from tuner.search.tiling import footprint_bytes, tiling

_WARP = 32
_SHARED_BYTES = 48 * 1024
_BLOCKS_WANTED = 160  # two for each multiprocessor of a large GPU
_IMPOSSIBLE = -30.0


def gpu_scores(space: DecisionSpace, genomes: Genomes) -> NDArray[np.float64]:
    """A prior on log2 of the throughput: whole warps, enough blocks, sums in registers that reuse what is fetched,
    fetched tiles that fit shared memory several times, and neighbouring threads that read neighbouring floats.

    The tiles are those of ``schedules.gpu.rules``: blocks, virtual threads, threads, and two levels in each thread;
    reductions in steps of two levels.
    """
    score = _categorical_scores(space, genomes)
    tiles = tiling(space, genomes)
    if tiles is None or not tiles.spatial or any(tiles.factors[axis].shape[1] != 5 for axis in tiles.spatial):
        return score
    blocks, virtual, threads, outer, inner = (
        np.prod([tiles.factors[axis][:, level] for axis in tiles.spatial], axis=0) for level in range(5)
    )
    sums = virtual * outer * inner
    step = [factor[:, -2:].prod(axis=1) for factor in tiles.factors]
    region = [
        factor[:, 1:].prod(axis=1) if axis in tiles.spatial else step[axis] for axis, factor in enumerate(tiles.factors)
    ]
    assert space.anchor is not None
    sizes = zip(footprint_bytes(space, region), space.anchor.accesses, strict=True)
    fetched = sum((size for size, access in sizes if not access.is_write), np.zeros(len(genomes)))
    depth = np.prod([step[axis] for axis in tiles.reduction], axis=0) if tiles.reduction else np.ones(len(genomes))
    side_by_side = tiles.factors[tiles.spatial[-1]][:, 2]
    score += np.where((threads < _WARP) | (threads > 1024) | (fetched > _SHARED_BYTES), _IMPOSSIBLE, 0.0)
    score += np.log2(threads / (np.ceil(threads / _WARP) * _WARP))
    score -= 0.5 * _outside(threads, 64, 256) + 0.7 * _outside(sums, 16, 64) + 0.5 * _outside(virtual, 1, 4)
    score -= 0.3 * _outside(fetched, 1, _SHARED_BYTES / 3) + 0.3 * _outside(depth, 8, 32)
    score -= 0.5 * np.log2(_BLOCKS_WANTED / np.minimum(blocks, _BLOCKS_WANTED))
    score -= 0.3 * np.log2(16 / np.minimum(side_by_side, 16))
    return score


def _outside(value: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """By how many powers of two a value is outside of an interval."""
    return np.maximum(0.0, np.log2(low / value)) + np.maximum(0.0, np.log2(value / high))


def _categorical_scores(space: DecisionSpace, genomes: Genomes) -> NDArray[np.float64]:
    """Wider fetches, more unrolling and 128 threads, where everything else is equal."""
    score = np.zeros(len(genomes))
    for position, gene in enumerate(space.genes):
        if gene.kind is GeneKind.CATEGORICAL:
            chosen = gene.values[genomes[:, position]].astype(np.float64)
            score -= 0.02 * np.abs(np.log2(np.maximum(chosen, 1.0)) - np.log2(min(128.0, float(gene.values.max()) + 1)))
    return score
