"""The transforms of Winograd's minimal filtering: a tile at a time, unrolled, its channels in vector lanes.

Left to the rules, the elementwise steps would be inlined into one another and computed over and over. Here each tile
is gathered, transformed along one axis and then along the other, in buffers of its own that stay in L1; with the
indices of a tile unrolled, the choices of `schedules.winograd` become plain sums. One decision is left: how many
channels at once.
"""

from __future__ import annotations

from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from schedules.blocks import block_names
from schedules.winograd import GATHER, INPUT, INPUT_ROWS, OUTPUT_ROWS, OUTPUT_TILE

_MAX_VECTOR = 64
"""Channels at once: four registers of AVX-512 for every element of a tile."""


def schedule_input_transform(sch: Schedule) -> None:
    """Before::

        for r, s, tile, c in grid(6, 6, T, C): d[r, s, tile, c] = x[...] if inside else 0
        for a, s, tile, c in grid(6, 6, T, C): e[a, s, tile, c] = Σᵣ Bᵀ[a, r] d[r, s, tile, c]
        for k, tile, c in grid(36, T, C):      v[k, tile, c] = Σₛ Bᵀ[k % 6, s] e[k // 6, s, tile, c]

    After::

        for tile_c0 in parallel(T * C0):
            for r, s in unroll(6, 6): for c1 in vectorized(C1): d[r, s, c1] = ...
            for a, s in unroll(6, 6): for c1 in vectorized(C1): e[a, s, c1] = ...
            for k in unroll(36):      for c1 in vectorized(C1): v[k, tile, c0 * C1 + c1] = ...
    """
    block = sch.get_sblock(INPUT)
    position, tile, channel = sch.get_loops(block)
    outer, inner = sch.split(channel, sch.sample_perfect_tile(channel, n=2, max_innermost_factor=_MAX_VECTOR))
    sch.reorder(tile, outer, position, inner)
    body = sch.fuse(tile, outer)
    sch.parallel(body)
    for name in (INPUT_ROWS, GATHER):
        producer = sch.get_sblock(name)
        sch.compute_at(producer, body, preserve_unit_loops=True)
        _unroll_and_vectorize(sch, producer)
    sch.unroll(position)
    sch.vectorize(inner)


def schedule_output_transform(sch: Schedule) -> None:
    """The rows of a tile, then its columns together with whatever was fused behind the convolution.

    Before::

        for i, b, tile, c in grid(4, 6, T, C): t[i, b, tile, c] = Σₐ Aᵀ[i, a] m[a * 6 + b, tile, c]
        for n, h, w, c in grid(N, H, W, C):    y[n, h, w, c] = Σᵦ Aᵀ[w % 4, b] t[h % 4, b, tile(n, h, w), c]
        for n, h, w, c in grid(N, H, W, C):    out[n, h, w, c] = max(y[n, h, w, c] + bias[c], 0)

    After::

        for n_h0_w0_c0 in parallel(T * C0):
            for i, b in unroll(4, 6): for c1 in vectorized(C1): t[i, b, c1] = ...
            for h1, w1 in unroll(4, 4): for c1 in vectorized(C1): out[n, h0 * 4 + h1, ...] = max(Σᵦ ... + bias, 0)
    """
    rows = sch.get_sblock(OUTPUT_ROWS)
    *inlined, last = [name for name in block_names(sch.mod) if name not in ("root", OUTPUT_ROWS)]
    for name in inlined:
        sch.compute_inline(sch.get_sblock(name))
    n, h, w, c = sch.get_loops(sch.get_sblock(last))
    outer_h, inner_h = sch.split(h, [None, OUTPUT_TILE])
    outer_w, inner_w = sch.split(w, [None, OUTPUT_TILE])
    outer_c, inner_c = sch.split(c, sch.sample_perfect_tile(c, n=2, max_innermost_factor=_MAX_VECTOR))
    sch.reorder(n, outer_h, outer_w, outer_c, inner_h, inner_w, inner_c)
    body = sch.fuse(n, outer_h, outer_w, outer_c)
    sch.parallel(body)
    sch.compute_at(rows, body, preserve_unit_loops=True)
    _unroll_and_vectorize(sch, rows)
    sch.unroll(inner_h)
    sch.unroll(inner_w)
    sch.vectorize(inner_c)


def _unroll_and_vectorize(sch: Schedule, block: SBlockRV) -> None:
    """All loops of a block that was moved under the parallel one: the innermost in lanes, the others unrolled."""
    _, *unrolled, innermost = sch.get_loops(block)
    for loop in unrolled:
        sch.unroll(loop)
    sch.vectorize(innermost)
