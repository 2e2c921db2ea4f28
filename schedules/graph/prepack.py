"""Weights in the order of their schedules, computed at build time with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import IRModule, TensorLoad
from tvm.tirx import BufferStore, Expr, Var

from schedules.graph.index_expressions import evaluate, mentions, only_block
from schedules.graph.rewrite import Walk, array_of, constant, op_name, rewrite_main

Array = npt.NDArray[Any]


def fold_prepacking(mod: IRModule) -> IRModule:
    """Evaluate calls of functions that only move the elements of one constant.

    The copies that `SplitLayoutRewritePreproc` makes are such functions; a reshape and a transpose do their work
    at the speed of memory. Anything else is left to `FoldConstant`.

    Before::

        w1 = call_tir(conv_weight_prepack, (const,)); y = call_tir(conv, (x, w1))

    After::

        y = call_tir(conv, (x, const'))
    """

    def rule(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "call_tir":
            return None
        arguments = list(value.args[1].fields)
        values = array_of(arguments[0]) if len(arguments) == 1 else None
        moved = None if values is None else move_elements(mod[value.args[0]], values)
        return None if moved is None else constant(moved)

    return rewrite_main(mod, rule)


def move_elements(function: object, values: Array) -> Array | None:
    """What a PrimFunc that copies its one input element by element to other places makes of ``values``.

    Returns None unless every output axis is a digit of one input axis (``v``, ``v // a``, ``v % a``,
    ``v % a // b``) and those digits together are all of it: then the copy is a reshape and a transpose.
    """
    copy = _copy(function)
    if copy is None:
        return None
    store, axes, extents = copy
    if tuple(extents) != values.shape:
        return None
    per_axis: list[list[tuple[int, int, int]]] = [[] for _ in axes]  # (stride, extent, output axis)
    out_shape = [int(extent) for extent in store.buffer.shape]
    for position, (index, extent) in enumerate(zip(store.indices, out_shape, strict=True)):
        used = [number for number, axis in enumerate(axes) if mentions(index, axis)]
        if not used and extent == 1:
            continue
        if len(used) != 1:
            return None
        stride = _stride(index, axes[used[0]], length=extents[used[0]], extent=extent)
        if stride is None:
            return None
        per_axis[used[0]].append((stride, extent, position))
    split_shape: list[int] = []
    source_of: dict[int, int] = {}
    for axis, digits in enumerate(per_axis):
        ordered = sorted(digits, key=lambda item: (-item[0], item[2]))
        if not _is_mixed_radix(ordered, extents[axis]):
            return None
        for _, extent, position in ordered:
            source_of[position] = len(split_shape)
            split_shape.append(extent)
    order = [source_of[position] for position in sorted(source_of)]
    return values.reshape(split_shape).transpose(order).reshape(out_shape)


def _stride(index: Expr, axis: Var, *, length: int, extent: int) -> int | None:
    """The ``a`` of an index that is ``v // a % extent`` for every ``v`` below ``length``, else None."""
    values = np.arange(length)
    places = evaluate(index, axis, values)
    if places is None:
        return None
    changed = np.flatnonzero(places)
    stride = int(changed[0]) if changed.size else length
    return stride if np.array_equal(places, values // stride % extent) else None


def _is_mixed_radix(digits: list[tuple[int, int, int]], extent: int) -> bool:
    """Whether digits, most significant first, spell every number below ``extent`` exactly once."""
    below = 1
    for stride, size, _position in reversed(digits):
        if size != 1 and stride != below:
            return False
        below *= size
    return below == extent


def _copy(function: object) -> tuple[BufferStore, list[Var], list[int]] | None:
    """The store of a function that is one block ``out[f(v)] = in[v]``, the block's axes and their extents."""
    found = only_block(function)
    if found is None or len(function.params) != 2:  # type: ignore[attr-defined]
        return None
    block, store = found
    axes = [axis.var for axis in block.iter_vars]
    source, target = function.params  # type: ignore[attr-defined]
    if not isinstance(store.value, TensorLoad) or not store.value.source.same_as(source):
        return None
    read = list(store.value.indices)
    if len(read) != len(axes) or not all(index.same_as(axis) for index, axis in zip(read, axes, strict=True)):
        return None
    if not store.buffer.same_as(target):
        return None
    return store, axes, [int(axis.dom.extent) for axis in block.iter_vars]
