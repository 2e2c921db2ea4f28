"""What is left to decide in a chain: the register tiles of each stage's rows."""

from __future__ import annotations

from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.tirx import IterVar

from schedules.blocks import block_names

_MAX_PIXELS, _MAX_VECTOR = 14, 64


def is_chain(mod: IRModule) -> bool:
    """Whether ``main`` is a chain of `schedules.windows.lower`."""
    return "step" in block_names(mod) and "write0" in block_names(mod)


def schedule_chain(sch: Schedule) -> None:
    """For every stage, before::

        for w, c, kh, kw, ci in grid(W, C, KH, KW, CI): sums[w, c] += ring[..., w + kw, ci] * k[kh, kw, ci, c]
        for w, c in grid(W, C): next_ring[..., w, c] = max(sums[w, c] + bias[c], 0)

    After::

        for c0, w0 in grid(C0, W0):
            for kh, kw, ci in grid(KH, KW, CI):
                for w1 in unroll(W1): for c1 in vectorized(C1): sums[w1, c1] += ring[...] * k[...]
            for w1 in unroll(W1): for c1 in vectorized(C1): next_ring[...] = max(sums[w1, c1] + bias[...], 0)

    Channels outermost: a tile's weights stay in the first-level cache for the whole row. Where the chain averages, the
    last stage adds up its pixels instead of storing them.
    """
    names = block_names(sch.mod)
    for index in range(sum(name.startswith("write") for name in names)):
        write = sch.get_sblock(f"write{index}")
        w, c = sch.get_loops(write)
        w0, w1 = sch.split(w, sch.sample_perfect_tile(w, n=2, max_innermost_factor=_MAX_PIXELS))
        c0, c1 = sch.split(c, sch.sample_perfect_tile(c, n=2, max_innermost_factor=_MAX_VECTOR))
        sch.reorder(c0, w0, w1, c1)
        if f"sum{index}" in names:
            sums = sch.get_sblock(f"sum{index}")
            sch.compute_at(sums, w0, preserve_unit_loops=True)
            kinds = [axis.iter_type for axis in sch.get(sums).iter_vars]
            loops = sch.get_loops(sums)[2:]
            reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == IterVar.CommReduce]
            pixel, channel = loops[:2]
            sch.reorder(*reduced, pixel, channel)
            sch.unroll(pixel)
            sch.vectorize(channel)
        sch.unroll(w1)
        sch.vectorize(c1)
    for name in names:
        if name.startswith(("left", "right", "fill")):
            sch.vectorize(sch.get_loops(sch.get_sblock(name))[-1])
