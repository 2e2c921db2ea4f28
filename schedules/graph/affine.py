"""Scales and shifts by constants: batch normalization and what follows it, folded into convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import Walk, array_of, constant, dtype_of, op_name, rewrite_main, static_shape

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """``base * scale + shift``, elementwise; ``scale`` and ``shift`` have the rank of ``base`` and broadcast to it."""

    base: relax.Expr
    scale: Array
    shift: Array


def fold_affine(mod: IRModule) -> IRModule:
    """Merge chains of multiplications and additions by constants, and fold the scale into a convolution's weights.

    Batch normalization with constant statistics is such a step. Constants are combined in float64. The rounding
    differs from the model's in the last bits of a float32 (weights times scale instead of result times scale).

    Before::

        c = conv2d(x, w); n = batch_norm(c, gamma, beta, mean, variance)[0]; m = multiply(n, s); y = add(m, t)

    After::

        c = conv2d(x, w * s'); y = add(c, t')
    """
    known: dict[relax.Var, Affine] = {}

    def rule(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        step = _step(walk, value)
        if step is None:
            return None
        inner = known.get(step.base) if isinstance(step.base, relax.Var) else None
        if inner is not None and walk.use_count(step.base) == 1:
            step = Affine(base=inner.base, scale=inner.scale * step.scale, shift=inner.shift * step.scale + step.shift)
        known[variable] = step
        walk.defer(variable, partial(_emit, walk, step))
        return None

    return rewrite_main(mod, rule)


def _step(walk: Walk, value: relax.Expr) -> Affine | None:
    """One binding as a scale and a shift of its input, or None."""
    if isinstance(value, relax.TupleGetItem):
        source = walk.definition(value.tuple_value)
        return _normalization(source) if op_name(source) == "nn.batch_norm" and value.index == 0 else None
    name = op_name(value)
    if name not in ("add", "subtract", "multiply", "divide") or not dtype_of(value).startswith("float"):
        return None
    left, right = value.args
    if array_of(left) is not None and name in ("add", "multiply"):
        left, right = right, left
    values = array_of(right)
    shape = static_shape(left)
    if values is None or shape is None or array_of(left) is not None or static_shape(value) != shape:
        return None
    operand = values.astype(np.float64).reshape((1,) * (len(shape) - values.ndim) + values.shape)
    one, zero = np.ones_like(operand), np.zeros_like(operand)
    match name:
        case "add":
            return Affine(base=left, scale=one, shift=operand)
        case "subtract":
            return Affine(base=left, scale=one, shift=-operand)
        case "multiply":
            return Affine(base=left, scale=operand, shift=zero)
        case _:
            return Affine(base=left, scale=1.0 / operand, shift=zero) if np.all(operand != 0) else None


def _normalization(call: relax.Expr) -> Affine | None:
    """Batch normalization by constant statistics: ``(x - mean) / sqrt(variance + epsilon) * gamma + beta``."""
    parameters = [array_of(argument) for argument in call.args[1:]]
    shape = static_shape(call.args[0])
    if shape is None or call.attrs.training or any(values is None for values in parameters):
        return None
    gamma, beta, mean, variance = (np.asarray(values, dtype=np.float64) for values in parameters)
    scale = 1.0 / np.sqrt(variance + float(call.attrs.epsilon))
    if call.attrs.scale:
        scale = scale * gamma
    shift = -mean * scale
    if call.attrs.center:
        shift = shift + beta
    axis = int(call.attrs.axis) % len(shape)
    along = tuple(-1 if index == axis else 1 for index in range(len(shape)))
    return Affine(base=call.args[0], scale=scale.reshape(along), shift=shift.reshape(along))


def _emit(walk: Walk, affine: Affine) -> relax.Expr:
    """The operators of an affine step, as few as will do."""
    dtype = dtype_of(affine.base)
    result = walk.new(affine.base)
    if not np.all(affine.scale == 1.0):
        scaled = _scaled_convolution(walk, affine)
        if scaled is None:
            scaled = relax.op.multiply(result, constant(affine.scale.astype(dtype)))
        result = walk.emit(scaled)
    if np.any(affine.shift != 0.0):
        result = walk.emit(relax.op.add(result, constant(affine.shift.astype(dtype))))
    return result


def _scaled_convolution(walk: Walk, affine: Affine) -> relax.Expr | None:
    """The convolution that computes the scaled result itself, if the base is one that nothing else reads."""
    call = walk.definition(affine.base)
    if call is None or op_name(call) != "nn.conv2d" or walk.use_count(affine.base) != 1:
        return None
    weight = array_of(call.args[1])
    if weight is None or call.attrs.data_layout != "NCHW" or call.attrs.kernel_layout != "OIHW":
        return None
    if any(extent != 1 for axis, extent in enumerate(affine.scale.shape) if axis != 1):
        return None
    scaled = constant((weight.astype(np.float64) * affine.scale.reshape(-1, 1, 1, 1)).astype(weight.dtype))
    return relax.Call(call.op, [walk.new(call.args[0]), scaled], call.attrs, call.ty_args)
