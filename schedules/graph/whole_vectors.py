"""Convolutions whose output channels nearly fill whole vectors, made to fill them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import (
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
from schedules.graph.winograd import winograd_shape

_MAX_PADDED = 1.1
_MIN_PRODUCTS = 64
"""Products of an output with fewer cost no more than dropping the padding afterwards."""
_MIN_PIXELS = 16
"""With fewer the weights' way from memory is all that counts."""
_ELEMENTWISE = frozenset({"nn.relu", "clip", "nn.silu", "sigmoid", "tanh"})
_WITH_CONSTANT = frozenset({"add", "multiply", "maximum", "minimum"})


def fill_vectors(mod: IRModule, *, lanes: int) -> IRModule:
    """Pad the output channels of convolutions (NHWC) to whole vectors, and drop the padding behind their epilogue.

    1000 channels have no divisor between 8 and 20: tiles of them leave half of a vector of 16 empty. The mean over all
    pixels counts as epilogue; what is dropped behind it is next to nothing. Convolutions that Winograd can compute stay
    as they are: the two ways are told to be ways of the same convolution by its shape.

    Before::

        y = mean(relu(add(conv2d(x, w), bias)), axis=[1, 2])                                  # 1000 channels

    After::

        p = mean(relu(add(conv2d(x, w padded to 1008), bias padded to 1008)), axis=[1, 2])
        y = strided_slice(p, axes=[3], begin=[0], end=[1000])
    """
    if not has_binding(mod, lambda value: _is_worth_padding(value, lanes=lanes)):
        return mod
    wide: dict[relax.Var, relax.Expr] = {}

    def rule(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if _is_worth_padding(value, lanes=lanes):
            padded = _padded_convolution(walk, value, lanes=lanes)
        elif op_name(value) and value.args and value.args[0] in wide and walk.use_count(value.args[0]) == 1:
            padded = _padded_step(value, wide[value.args[0]])
        else:
            padded = None
        if padded is not None:
            wide[variable] = walk.emit(padded)
            walk.defer(variable, partial(_without_padding, walk, variable, wide[variable]))
        return None

    return rewrite_main(mod, rule)


def _is_worth_padding(value: relax.Expr, *, lanes: int) -> bool:
    if op_name(value) != "nn.conv2d" or value.attrs.data_layout != "NHWC" or value.attrs.kernel_layout != "HWIO":
        return False
    weights, output = array_of(value.args[1]), static_shape(value)
    if weights is None or output is None or int(value.attrs.groups) != 1 or dtype_of(value) != "float32":
        return False
    if winograd_shape(value) is not None:
        return False
    channels, products = weights.shape[-1], math.prod(weights.shape[:-1])
    little = channels < _padded_to(channels, lanes) <= _MAX_PADDED * channels
    return little and products >= _MIN_PRODUCTS and math.prod(output[:-1]) >= _MIN_PIXELS


def _padded_convolution(walk: Walk, call: relax.Expr, *, lanes: int) -> relax.Expr:
    weights = array_of(call.args[1])
    assert weights is not None
    padded = constant(_with_zeros(weights, to=_padded_to(weights.shape[-1], lanes)))
    return relax.Call(call.op, [walk.new(call.args[0]), padded], call.attrs)


def _padded_step(call: relax.Expr, operand: relax.Expr) -> relax.Expr | None:
    """A step behind a padded convolution with as many channels, None for one that is not by channel."""
    name, before = op_name(call), static_shape(call.args[0])
    assert before is not None
    if name in _ELEMENTWISE:
        return relax.Call(call.op, [operand, *call.args[1:]], call.attrs)
    if name in ("mean", "sum") and call.attrs.axis is not None:
        by_pixel = all(axis % len(before) < len(before) - 1 for axis in integers(call.attrs.axis))
        return relax.Call(call.op, [operand], call.attrs) if by_pixel else None
    values = array_of(call.args[1]) if name in _WITH_CONSTANT else None
    if values is None or static_shape(call) != before:
        return None
    if values.size == 1:
        return relax.Call(call.op, [operand, call.args[1]], call.attrs)
    channels = static_shape(operand)
    assert channels is not None
    if values.shape[-1:] != before[-1:]:
        return None
    return relax.Call(call.op, [operand, constant(_with_zeros(values, to=channels[-1]))], call.attrs)


def _without_padding(walk: Walk, variable: relax.Var, padded: relax.Expr) -> relax.Expr:
    shape = static_shape(variable)
    assert shape is not None
    return walk.emit(relax.op.strided_slice(padded, axes=[len(shape) - 1], begin=[0], end=[shape[-1]]))


def _with_zeros(values: npt.NDArray[Any], *, to: int) -> npt.NDArray[Any]:
    """The last axis lengthened."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, to - values.shape[-1])])


def _padded_to(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes
