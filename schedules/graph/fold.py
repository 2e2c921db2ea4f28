"""Folding of constant expressions with NumPy.

TVM's own `FoldConstant` compiles each constant expression to naive single-threaded code. NumPy needs a small part of
that time, and since results are kept as views until something reads them, a chain of broadcasts, reshapes and
transposes of a weight is copied once. What has no rule here is left to `FoldConstant`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import Call, IRModule

from schedules.graph.rewrite import Walk, array_of, constant, dtype_of, integers, op_name, rewrite_main, static_shape

Array = npt.NDArray[Any]


def fold_constants(mod: IRModule) -> IRModule:
    """Evaluate operators of which every input is constant, static shapes included.

    Before::

        w1 = broadcast_to(const, (64, 3, 3, 3)); w2 = permute_dims(w1, (2, 3, 1, 0)); y = conv2d(x, w2)

    After::

        y = conv2d(x, const')
    """
    known: dict[relax.Var, Array] = {}

    def values_of(expression: relax.Expr) -> Array | None:
        return known.get(expression) if isinstance(expression, relax.Var) else array_of(expression)

    def rule(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        shape = static_shape(value.args[0]) if op_name(value) == "shape_of" else None
        if shape is not None:
            known[variable] = np.array(shape, dtype=np.int64)
            walk.defer(variable, partial(relax.ShapeExpr, list(shape)))
            return None
        result = _evaluate(value, values_of)
        if result is not None:
            known[variable] = result
            walk.defer(variable, partial(constant, result))
        return None

    return rewrite_main(mod, rule)


def _evaluate(value: relax.Expr, values_of: Callable[[relax.Expr], Array | None]) -> Array | None:
    """The value of a binding, as a view where NumPy can make one; None where it is not constant or has no rule."""
    evaluate = _EVALUATORS.get(op_name(value))
    shape = static_shape(value)
    if evaluate is None or shape is None:
        return None
    tensors = list(value.args) if op_name(value) == "shape_to_tensor" else _tensors(relax.Tuple(value.args))
    inputs = [values_of(tensor) for tensor in tensors]
    known = [values for values in inputs if values is not None]
    if not known or len(known) < len(inputs):
        return None
    result = np.asarray(evaluate(value, known), dtype=dtype_of(value))
    return np.broadcast_to(result, shape) if op_name(value) == "broadcast_to" else result.reshape(shape)


def _tensors(argument: relax.Expr) -> list[relax.Expr]:
    if isinstance(argument, relax.Tuple):
        return [tensor for field in argument.fields for tensor in _tensors(field)]
    return [argument] if isinstance(argument.ty, relax.TensorType) else []


def _elementwise(function: Callable[..., Array]) -> Callable[[Call, list[Array]], Array]:
    return lambda _call, inputs: function(*inputs)


def _transpose(call: Call, inputs: list[Array]) -> Array:
    axes = call.attrs.axes
    return inputs[0].transpose(None if axes is None else integers(axes))


def _take(call: Call, inputs: list[Array]) -> Array:
    axis = call.attrs.axis
    return inputs[0].take(inputs[1], axis=None if axis is None else int(axis))


def _divide(call: Call, inputs: list[Array]) -> Array:
    """Relax divides integers like C, towards zero; such shapes-as-tensors arithmetic is small, so exactness is free."""
    if np.issubdtype(inputs[0].dtype, np.integer):
        return np.trunc(inputs[0].astype(np.float64) / inputs[1]).astype(inputs[0].dtype)
    quotient: Array = inputs[0] / inputs[1]
    return quotient


_EVALUATORS: Mapping[str, Callable[[Call, list[Array]], Array]] = {
    "broadcast_to": _elementwise(np.asarray),
    "reshape": _elementwise(np.asarray),
    "flatten": _elementwise(np.asarray),
    "expand_dims": _elementwise(np.asarray),
    "squeeze": _elementwise(np.asarray),
    "permute_dims": _transpose,
    "astype": _elementwise(np.asarray),
    "add": _elementwise(np.add),
    "subtract": _elementwise(np.subtract),
    "multiply": _elementwise(np.multiply),
    "divide": _divide,
    "less": _elementwise(np.less),
    "maximum": _elementwise(np.maximum),
    "minimum": _elementwise(np.minimum),
    "negative": _elementwise(np.negative),
    "sqrt": _elementwise(np.sqrt),
    "isnan": _elementwise(np.isnan),
    "shape_to_tensor": _elementwise(np.asarray),
    "take": _take,
    "where": _elementwise(np.where),
    "concat": lambda call, inputs: np.concatenate(inputs, axis=int(call.attrs.axis or 0)),
    "stack": lambda call, inputs: np.stack(inputs, axis=int(call.attrs.axis or 0)),
}
