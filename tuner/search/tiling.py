"""The tile factors of candidates, and what a tile touches: what features and priors are computed from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace, GeneKind, Genomes

FloatMatrix = NDArray[np.float64]

# Which tile levels are inside each of five nested regions, innermost first: the register tile, then around it R1, S2,
# R0 and S1, as the loops of SSRSRS lie.
_SPATIAL_LEVELS = ((3,), (3,), (2, 3), (2, 3), (1, 2, 3))
_REDUCTION_LEVELS = ((), (1,), (1,), (0, 1), (0, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiling:
    """The tile factors of a batch of candidates: ``factors[a]`` has shape (candidates, parts), outermost first."""

    factors: tuple[FloatMatrix, ...]
    spatial: tuple[int, ...]
    reduction: tuple[int, ...]

    def region(self, level: int) -> list[FloatMatrix]:
        """The extent of every axis inside the region of that level (0: the register tile)."""
        extents = []
        for axis, factor in enumerate(self.factors):
            levels = _SPATIAL_LEVELS[level] if axis in self.spatial else _REDUCTION_LEVELS[level]
            # Spaces with fewer parts per axis keep their innermost ones in the same regions.
            shift = (4 if axis in self.spatial else 2) - factor.shape[1]
            inside = [part - shift for part in levels if part - shift >= 0]
            extents.append(factor[:, inside].prod(axis=1) if inside else np.ones(len(factor)))
        return extents


def tiling(space: DecisionSpace, genomes: Genomes) -> Tiling | None:
    """The anchor's tile factors of every genome; None where the space has no anchor."""
    anchor = space.anchor
    if anchor is None:
        return None
    factors: list[FloatMatrix] = [np.full((len(genomes), 1), float(extent)) for extent in anchor.extents]
    for position, gene in enumerate(space.genes):
        if gene.kind is GeneKind.TILE and gene.block == anchor.block and 0 <= gene.axis < len(factors):
            factors[gene.axis] = gene.table[genomes[:, position]].astype(np.float64)
    axes = range(len(factors))
    return Tiling(
        factors=tuple(factors),
        spatial=tuple(axis for axis in axes if not anchor.reduction[axis]),
        reduction=tuple(axis for axis in axes if anchor.reduction[axis]),
    )


def footprint_bytes(space: DecisionSpace, region: list[FloatMatrix]) -> list[FloatMatrix]:
    """Bytes of every accessed buffer that a region touches."""
    assert space.anchor is not None
    sizes = []
    for access in space.anchor.accesses:
        elements = np.ones_like(region[0])
        for row in access.strides:
            elements = elements * (
                1 + sum(stride * (tile - 1) for stride, tile in zip(row, region, strict=True) if stride)
            )
        sizes.append(elements * access.item_bytes)
    return sizes
