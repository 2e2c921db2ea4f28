"""Grouped 1×1 convolutions in whole vectors, and the channel shuffle behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import (
    FUSES_ELEMENTWISE,
    Walk,
    array_of,
    constant,
    dtype_of,
    has_binding,
    integers,
    op_name,
    rewrite_main,
    static_shape,
)
from schedules.grouped import OUTPUT, GroupedShape, grouped_convolution, padded_weights

_MAX_PADDED = 1.5
"""With more lanes than this for each output channel, too much of every vector is padding."""
_UNARY = frozenset({"nn.relu", "nn.silu", "nn.gelu", "clip", "sigmoid", "tanh", "exp", "negative", "abs"})
_WITH_CONSTANT = frozenset({"add", "subtract", "multiply", "divide", "maximum", "minimum"})


@dataclass(kw_only=True)
class _Shuffles:
    """The channel shuffles of a network that a convolution can do: by the variable of the convolution, of each step in
    between that has a constant to be shuffled with it, and of the shuffle's result."""

    convolutions: set[relax.Var] = field(default_factory=set)
    steps: dict[relax.Var, int] = field(default_factory=dict)
    results: dict[relax.Var, relax.Var] = field(default_factory=dict)


def group_convolutions(mod: IRModule, *, lanes: int) -> IRModule:
    """Compute grouped 1×1 convolutions of a prepared ``main`` (NHWC) with a group's outputs padded to whole vectors.

    A channel shuffle behind one, or behind its bias and activation, becomes the order in which it writes its outputs.
    ``lanes`` is how many float32 a vector of the target has.

    Before::

        y = add(conv2d(x, w, groups=4), bias); s = reshape(permute_dims(reshape(y, (.., 4, 68)), ..), (.., 272))

    After::

        s = add(call_tir(grouped_convolution, (x, padded w)), shuffled bias)
    """
    if not has_binding(mod, lambda value: _shape(value, lanes=lanes, shuffled=False) is not None):
        return mod
    shuffles = _Shuffles()

    def find(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        _find_shuffle(walk, variable, value, lanes=lanes, found=shuffles)
        return None

    rewrite_main(mod, find)

    def rule(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if variable in shuffles.results:
            return walk.new(shuffles.results[variable])
        if variable in shuffles.steps:
            return _with_shuffled_constant(walk, value, groups=shuffles.steps[variable])
        shape = _shape(value, lanes=lanes, shuffled=variable in shuffles.convolutions)
        if shape is None:
            return None
        weights = array_of(value.args[1])
        assert weights is not None
        compute = partial(grouped_convolution, shape=shape)
        data, padded = walk.emit(walk.new(value.args[0])), constant(padded_weights(weights, shape))
        return walk.emit_te(compute, data, padded, name=OUTPUT, pattern=FUSES_ELEMENTWISE)

    return rewrite_main(mod, rule)


def shuffled(values: npt.NDArray[Any], *, groups: int) -> npt.NDArray[Any]:
    """The last axis read group by group in turn: (.., groups, n) transposed to (.., n, groups)."""
    by_group = values.reshape(*values.shape[:-1], groups, -1)
    return np.ascontiguousarray(by_group.swapaxes(-1, -2)).reshape(values.shape)


def _shape(value: relax.Expr, *, lanes: int, shuffled: bool) -> GroupedShape | None:
    """The shape of a convolution that is computed here, None for everything else."""
    if op_name(value) != "nn.conv2d" or value.attrs.data_layout != "NHWC" or value.attrs.kernel_layout != "HWIO":
        return None
    weights, groups = static_shape(value.args[1]), int(value.attrs.groups)
    if weights is None or weights[:2] != (1, 1) or groups == 1 or array_of(value.args[1]) is None:
        return None
    is_float = dtype_of(value.args[0]) == dtype_of(value.args[1]) == dtype_of(value) == "float32"
    if not is_float or any(integers(value.attrs.padding)) or static_shape(value) is None:
        return None
    stride_rows, stride_columns = integers(value.attrs.strides)
    shape = GroupedShape(
        groups=groups,
        inputs=weights[2],
        outputs=weights[3] // groups,
        stride_rows=stride_rows,
        stride_columns=stride_columns,
        lanes=lanes,
        shuffled=shuffled,
    )
    return shape if shape.padded_outputs <= _MAX_PADDED * shape.outputs else None


def _find_shuffle(walk: Walk, variable: relax.Var, value: relax.Expr, *, lanes: int, found: _Shuffles) -> None:
    """Note the shuffle that ends in this binding, if a convolution above it can do it."""
    source = _shuffled_variable(walk, value)
    if source is None:
        return
    groups, start = source
    steps: dict[relax.Var, int] = {}
    above = start
    while (step := walk.definition(above)) is not None and walk.use_count(above) == 1:
        shape = _shape(step, lanes=lanes, shuffled=True)
        if shape is not None:
            if shape.groups == groups:
                found.convolutions.add(above)
                found.steps |= steps
                found.results[variable] = start
            return
        if op_name(step) in _WITH_CONSTANT and _is_per_channel(step):
            steps[above] = groups
        elif op_name(step) not in _UNARY and not _has_scalar(step):
            return
        above = step.args[0]


def _shuffled_variable(walk: Walk, value: relax.Expr) -> tuple[int, relax.Var] | None:
    """The groups and the input of ``reshape(permute_dims(reshape(x)))`` if that shuffles the last axis of ``x``."""
    permuted = walk.definition(value.args[0]) if op_name(value) == "reshape" else None
    if permuted is None or op_name(permuted) != "permute_dims" or permuted.attrs.axes is None:
        return None
    split = walk.definition(permuted.args[0])
    if split is None or op_name(split) != "reshape":
        return None
    if walk.use_count(value.args[0]) != 1 or walk.use_count(permuted.args[0]) != 1:
        return None
    shape, by_group = static_shape(split.args[0]), static_shape(split)
    if shape is None or by_group is None or static_shape(value) != shape or by_group[:-2] != shape[:-1]:
        return None
    rank = len(by_group)
    if integers(permuted.attrs.axes) != [*range(rank - 2), rank - 1, rank - 2]:
        return None
    return (by_group[-2], split.args[0]) if isinstance(split.args[0], relax.Var) else None


def _is_per_channel(step: relax.Expr) -> bool:
    """Whether the second operand is a constant with at most one long axis, the last one."""
    values, shape = array_of(step.args[1]), static_shape(step)
    return values is not None and shape is not None and values.shape[-1:] == shape[-1:] and values.size == shape[-1]


def _has_scalar(step: relax.Expr) -> bool:
    """Whether it is arithmetic with one number, such as the bounds of a ReLU6."""
    values = array_of(step.args[1]) if op_name(step) in _WITH_CONSTANT else None
    return values is not None and values.size == 1


def _with_shuffled_constant(walk: Walk, step: relax.Expr, *, groups: int) -> relax.Expr:
    values = array_of(step.args[1])
    assert values is not None
    return relax.Call(step.op, [walk.new(step.args[0]), constant(shuffled(values, groups=groups))], step.attrs)
