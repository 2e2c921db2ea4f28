"""Clip, as the ONNX importer writes it, back to operators that the graph passes know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax
from tvm.ir import Call, IRModule, TensorLoad
from tvm.tirx import Max, Min

from schedules.graph.index_expressions import only_block
from schedules.graph.rewrite import Walk, array_of, dtype_of, op_name, rewrite_main

_OPERATORS: dict[type, Callable[..., relax.Expr]] = {Max: relax.op.maximum, Min: relax.op.minimum}


def restore_clip(mod: IRModule) -> IRModule:
    """Turn calls of elementwise ``maximum`` and ``minimum`` PrimFuncs into Relax operators.

    The importer emits Clip as functions of its own, opaque to layout and fusion. They are recognized by their body,
    not by their name. They become `relax.maximum` and `relax.minimum` rather than `relax.clip`: that keeps ONNX's
    order (with ``min > max`` everything becomes ``max``; `relax.clip` gives ``min``), allows one-sided bounds, and
    compiles to the very comparisons that were there, so a NaN comes out as it did before. A bound that is not a
    constant scalar stays as it is.

    Before::

        a = call_tir(maximum, (x, 0.0)); b = call_tir(minimum, (a, 6.0))

    After::

        a = maximum(x, 0.0); b = minimum(a, 6.0)
    """

    def rule(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "call_tir":
            return None
        function = mod[value.args[0]]
        found = _bounded(function, value)
        if found is None:
            return None
        operator, tensor, bound = found
        return operator(walk.new(tensor), walk.new(bound))

    return rewrite_main(mod, rule)


def _bounded(function: object, call: Call) -> tuple[Callable[..., relax.Expr], relax.Expr, relax.Expr] | None:
    """The operator, the tensor and the scalar bound of a call, when the function is ``max(x, bound)`` or ``min``."""
    found = only_block(function)
    if found is None or type(found[1].value) not in _OPERATORS:
        return None
    store = found[1]
    operator = _OPERATORS[type(store.value)]
    left, right = store.value.a, store.value.b
    arguments = list(call.args[1].fields)
    if not isinstance(left, TensorLoad) or not _same_indices(left.indices, store.indices):
        return None
    buffers = list(function.params)  # type: ignore[attr-defined]
    if not arguments or not left.source.same_as(buffers[0]):
        return None
    if len(arguments) == 1 and hasattr(right, "value"):
        return operator, arguments[0], relax.const(float(right.value), dtype_of(arguments[0]))
    if len(arguments) == 2 and isinstance(right, TensorLoad) and right.source.same_as(buffers[1]):
        values = array_of(arguments[1])
        if values is not None and values.size == 1:
            return operator, arguments[0], relax.const(values.reshape(()), str(values.dtype))
    return None


def _same_indices(left: Any, right: Any) -> bool:
    return len(left) == len(right) and all(a.same_as(b) for a, b in zip(left, right, strict=True))
