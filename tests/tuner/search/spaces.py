"""A made-up design space with a known best candidate: what the search is tested on, without TVM."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from schedules.decisions import Access, Anchor, DecisionSpace, Gene, GeneKind, RowStage, factorizations
from tuner.search.draft import Draft


def matmul_space(size: int = 256, *, variant: str = "tile-0") -> DecisionSpace:
    """A square matmul tiled SSRSRS, as the rules make it: two spatial axes, one reduction, an unroll bound."""
    spatial, reduction = factorizations(size, 4, 64), factorizations(size, 2, 64)
    unrolls = np.array([0, 16, 64])
    genes = (
        Gene(kind=GeneKind.TILE, instruction=1, block="matmul", axis=0, table=spatial, values=spatial),
        Gene(kind=GeneKind.TILE, instruction=2, block="matmul", axis=1, table=spatial, values=spatial),
        Gene(kind=GeneKind.TILE, instruction=3, block="matmul", axis=2, table=reduction, values=reduction),
        Gene(kind=GeneKind.CATEGORICAL, instruction=4, block="", axis=-1, table=np.arange(3)[:, None], values=unrolls),
    )
    strides = {"a": [[1, 0, 0], [0, 0, 1]], "b": [[0, 0, 1], [0, 1, 0]], "c": [[1, 0, 0], [0, 1, 0]]}
    accesses = tuple(
        Access(strides=np.array(rows), item_bytes=4, is_write=name == "c", layout_free=name == "b")
        for name, rows in strides.items()
    )
    anchor = Anchor(
        block="matmul",
        axes=("i", "j", "k"),
        extents=(size, size, size),
        reduction=(False, False, True),
        accesses=accesses,
    )
    instructions: list[Any] = [[name, [], [], []] for name in ("GetSBlock", "TileI", "TileJ", "TileK", "Unroll")]
    return DecisionSpace(variant=variant, instructions=instructions, genes=genes, anchor=anchor)


def latency_us(space: DecisionSpace, draft: Draft) -> float:
    """A landscape with one basin: best at 4 rows × 16 columns in registers, a reduction block of 64, unrolled by 16."""
    i, j, k, unroll = space.decisions(draft.genome)
    distance = abs(np.log2(i[3] / 4)) + abs(np.log2(j[3] / 16)) + abs(np.log2(k[1] / 64)) + abs(unroll[0] - 1)
    return float(100.0 * 2 ** (0.4 * distance))


def chain_space(*channels: int, columns: int = 56, rows: int = 1) -> DecisionSpace:
    """A chain of 1×1 convolutions row by row: each stage has a tile of pixels and one of channels."""
    genes: list[Gene] = []
    stages = []
    for index, (before, after) in enumerate(itertools.pairwise(channels)):
        for axis, (extent, widest) in enumerate(((columns, 14), (after, 64))):
            table = factorizations(extent, 2, widest)
            gene = Gene(
                kind=GeneKind.TILE, instruction=len(genes), block=f"write{index}", axis=axis, table=table, values=table
            )
            genes.append(gene)
        work = 2.0 * rows * columns * before * after
        stages.append(RowStage(pixels=2 * index, channels=2 * index + 1, work=work, mixes_channels=True))
    return DecisionSpace(variant="chain", instructions=[], genes=tuple(genes), anchor=None, stages=tuple(stages))
