"""Grouped 1×1 convolutions: a few pixels of one group at a time, all its channels or a part of them in registers.

The rules tile the whole channel axis, whatever the groups are. Here a register tile stays within a group, its sums in
whole vectors, and each tile is written out, epilogue included, before the next one begins. Three decisions are left:
the rows, the columns and the vectors of a register tile.
"""

from __future__ import annotations

from tvm.s_tir import Schedule

from schedules.blocks import block_names
from schedules.grouped import SHUFFLED_OUTPUT, SUMS

_MAX_ROWS, _MAX_COLUMNS, _MAX_VECTORS = 4, 14, 16


def schedule_grouped(sch: Schedule) -> None:
    """Before::

        for n, h, w, g, v, l, i in grid(N, H, W, G, V, L, I):
            s[n, h, w, g, v, l] += x[n, h, w, g * I + i] * k[g, i, v, l]
        for n, h, w, c in grid(N, H, W, G * O): out[n, h, w, c] = max(s[n, h, w, c // O, ...] + bias[c], 0)

    After (the outputs of one group follow one another; else ``g`` is innermost among the channels, and not parallel)::

        for n_h0_w0_g in parallel(N * H0 * W0 * G):
            for v0 in range(V0):
                for i in range(I):
                    for h1, w1, v1 in unroll(H1, W1, V1): for l in vectorized(L): s[...] += x[...] * k[...]
            for h1, w1 in unroll(H1, W1): for o in range(O): out[n, h, w, g * O + o] = max(s[...] + bias[c], 0)
    """
    sums = sch.get_sblock(SUMS)
    *inlined, last = [name for name in block_names(sch.mod)[1:] if name != SUMS]
    _, rows, columns, groups, vectors, *_ = sch.get_loops(sums)
    row_factors = sch.sample_perfect_tile(rows, n=2, max_innermost_factor=_MAX_ROWS)
    column_factors = sch.sample_perfect_tile(columns, n=2, max_innermost_factor=_MAX_COLUMNS)
    vector_factors = sch.sample_perfect_tile(vectors, n=2, max_innermost_factor=_MAX_VECTORS)
    count, shuffled = int(sch.get(groups).extent), SHUFFLED_OUTPUT in inlined or last == SHUFFLED_OUTPUT
    for name in inlined:
        sch.compute_inline(sch.get_sblock(name))
    n, h, w, c = sch.get_loops(sch.get_sblock(last))
    h0, h1 = sch.split(h, row_factors)
    w0, w1 = sch.split(w, column_factors)
    g, o = reversed(sch.split(c, [None, count])) if shuffled else sch.split(c, [count, None])
    if shuffled:
        sch.reorder(n, h0, w0, h1, w1, o, g)
        tile = sch.fuse(n, h0, w0)
        sch.unroll(g)
    else:
        sch.reorder(n, h0, w0, g, h1, w1, o)
        tile = sch.fuse(n, h0, w0, g)
    sch.parallel(tile)
    sch.unroll(h1)
    sch.unroll(w1)
    sch.compute_at(sums, tile, preserve_unit_loops=True)
    _, n, h1, w1, g, vectors, lanes, inputs = sch.get_loops(sums)
    v0, v1 = sch.split(vectors, vector_factors)
    sch.reorder(n, g, v0, inputs, h1, w1, v1, lanes)
    for loop in (h1, w1, v1):
        sch.unroll(loop)
    sch.vectorize(lanes)
