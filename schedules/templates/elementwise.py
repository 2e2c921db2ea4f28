"""Elementwise functions on rows of channels: scales and shifts by channel, activations, concatenations.

The rules fuse all loops to share them among the threads: then the channel is a remainder of the fused index, and what
is read by channel is read element by element (a scale and a ReLU of 56×56×224: 592 µs instead of 74). Here rows are
shared, and a row's channels stay a loop of their own. One decision is left: how many channels at once.
"""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.tirx import IterVar, Var
from tvm.tirx.analysis import undefined_vars

from schedules.blocks import block_names, blocks_of

_MIN_CHANNELS = 16
_MAX_VECTOR = 64
_MIN_ROWS = 64
"""With fewer, a row is shared too."""


def is_elementwise(mod: IRModule) -> bool:
    """Whether ``main`` reduces nothing, and reads neighbouring elements for neighbouring outputs, if it reads many."""
    blocks = list(blocks_of(mod["main"].body))[1:]
    if not blocks or not all(axis.iter_type == IterVar.DataPar for block in blocks for axis in block.iter_vars):
        return False
    axes = blocks[-1].iter_vars
    return (
        len(axes) > 1
        and int(axes[-1].dom.extent) >= _MIN_CHANNELS
        and all(_reads_rows(block, read) for block in blocks for read in block.reads)
    )


def schedule_elementwise(sch: Schedule) -> None:
    """Before::

        for n, h, w, c in grid(N, H, W, C): a[n, h, w, c] = x[n, h, w, c] * scale[c]
        for n, h, w, c in grid(N, H, W, C): out[n, h, w, c] = max(a[n, h, w, c], 0)

    After::

        for n_h_w in parallel(N * H * W):
            for c0 in range(C0): for c1 in vectorized(C1): out[n, h, w, c0 * C1 + c1] = max(x[...] * scale[...], 0)
    """
    *inlined, last = block_names(sch.mod)[1:]
    *rows, channel = sch.get_loops(sch.get_sblock(last))
    count = 1
    for loop in rows:
        count *= int(sch.get(loop).extent)
    outer, inner = sch.split(channel, sch.sample_perfect_tile(channel, n=2, max_innermost_factor=_MAX_VECTOR))
    for name in inlined:
        sch.compute_inline(sch.get_sblock(name))
    sch.parallel(sch.fuse(*rows) if count >= _MIN_ROWS else sch.fuse(*rows, outer))
    sch.vectorize(inner)


def _reads_rows(block: Any, read: Any) -> bool:
    """Whether the last index of a read, alone, follows the block's last axis, or none of its indices does."""
    *others, last = [list(undefined_vars(dimension.min)) for dimension in read.region] or [[]]
    innermost = block.iter_vars[-1].var
    return not any(_has(variables, innermost) for variables in others) and (
        not last or (len(last) == 1 and _has(last, innermost))
    )


def _has(variables: list[Var], wanted: Var) -> bool:
    return any(variable.same_as(wanted) for variable in variables)
