"""Normalizations of rows: softmax, layer normalization, and whatever else reduces and writes along the last axis.

The rules leave such functions without a design space, or with one row's partial results scattered over memory. Here a
row is finished before the next one begins: its reductions are split into vector lanes, and everything in between stays
in buffers as long as a row. One decision is left: how many elements at once.
"""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvm.tirx import IterVar

from schedules.blocks import block_names, blocks_of

_MAX_VECTOR = 64


def normalizes_rows(mod: IRModule) -> bool:
    """Whether ``main`` only has reductions along the last axis, and elementwise blocks over rows or over all elements,
    the last of which writes the output."""
    blocks = list(blocks_of(mod["main"].body))[1:]
    if len(blocks) < 2:
        return False
    *rows, columns = _extents(blocks[-1], IterVar.DataPar)
    reductions = [block for block in blocks if _extents(block, IterVar.CommReduce)]
    per_row, per_element = [extent for extent in rows if extent > 1], [*rows, columns]
    return (
        bool(reductions)
        and columns > 1
        and blocks[-1] not in reductions
        and all(_extents(block, IterVar.CommReduce) == [columns] for block in reductions)
        and all(
            [extent for extent in _extents(block, IterVar.DataPar) if extent > 1] == per_row
            or (block not in reductions and _extents(block, IterVar.DataPar) == per_element)
            for block in blocks
        )
    )


def schedule_rows(sch: Schedule) -> None:
    """Before::

        for i, k in grid(R, C): m[i] = max(m[i], x[i, k])
        for i, k in grid(R, C): e[i, k] = exp(x[i, k] - m[i])
        for i, k in grid(R, C): s[i] += e[i, k]
        for i, j in grid(R, C): out[i, j] = e[i, j] / s[i]

    After::

        for i in parallel(R):
            for k0 in range(C0): for k1 in vectorized(C1): m_lanes[k1] = max(m_lanes[k1], x[i, k0 * C1 + k1])
            for k1 in range(C1): m = max(m, m_lanes[k1])
            for k0 in range(C0): for k1 in vectorized(C1): e[k0 * C1 + k1] = exp(x[i, ...] - m)
            ...  # the sum likewise
            for j0 in range(C0): for j1 in vectorized(C1): out[i, j0 * C1 + j1] = e[...] / s
    """
    *producers, last = block_names(sch.mod)[1:]
    output = sch.get_sblock(last)
    *rows, column = sch.get_loops(output)
    factors = sch.sample_perfect_tile(column, n=2, max_innermost_factor=_MAX_VECTOR)
    _, lanes = sch.split(column, factors)
    row = sch.fuse(*rows)
    sch.parallel(row)
    sch.vectorize(lanes)
    for name in producers:
        block = sch.get_sblock(name)
        if _is_inlined(sch, block):
            sch.compute_inline(block)
    kept = [name for name in block_names(sch.mod)[1:] if name != last]
    partial: list[SBlockRV] = []
    for name in kept:
        block = sch.get_sblock(name)
        if _is_reduction(sch, block):
            _, inner = sch.split(sch.get_loops(block)[-1], factors)
            partial.append(sch.rfactor(inner, factor_axis=len(sch.get(block).writes[0].region)))
    for name in reversed([name for name in block_names(sch.mod)[1:] if name != last]):
        sch.compute_at(sch.get_sblock(name), row, preserve_unit_loops=True)
    for name in kept:
        block = sch.get_sblock(name)
        if not _is_reduction(sch, block) and int(sch.get(sch.get_loops(block)[-1]).extent) > 1:
            _, inner = sch.split(sch.get_loops(block)[-1], factors)
            sch.vectorize(inner)
    for block in partial:
        # Moving a block orders its loops like its iterators: the lanes first, the reduction last.
        _, inner, *_, outer = sch.get_loops(block)
        sch.reorder(outer, inner)
        sch.vectorize(inner)


def _is_inlined(sch: Schedule, block: SBlockRV) -> bool:
    """Elementwise steps with one reader disappear into it."""
    return not _is_reduction(sch, block) and len(sch.get_consumers(block)) == 1


def _is_reduction(sch: Schedule, block: SBlockRV) -> bool:
    return bool(_extents(sch.get(block), IterVar.CommReduce))


def _extents(block: Any, kind: int) -> list[int]:
    return [int(axis.dom.extent) for axis in block.iter_vars if axis.iter_type == kind]
