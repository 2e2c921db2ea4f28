"""Operators of the importer that compute nothing, or something simpler than they say."""

from __future__ import annotations

from functools import reduce

from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import Walk, integers, op_name, rewrite_main, static_shape

_SHAPING = ("broadcast_to", "reshape", "permute_dims", "expand_dims", "squeeze", "flatten")
_PAIRWISE = {"sum": relax.op.add, "max": relax.op.maximum, "min": relax.op.minimum}


def remove_identities(mod: IRModule) -> IRModule:
    """Drop what copies its input, and undo the importer's stack-and-reduce of ONNX Sum, Max and Min.

    A transpose of a transpose becomes one transpose or none (converters from channels-last frameworks leave pairs).

    Before::

        d = dropout(x); a = d[0]; b = broadcast_to(y, shape_of_y); s = sum(stack((a, b), axis=0), axis=0)

    After::

        s = add(x, y)
    """

    def rule(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        name = op_name(value)
        if isinstance(value, relax.TupleGetItem):
            source = walk.definition(value.tuple_value)
            is_dropout = op_name(source) == "nn.dropout" and value.index == 0
            return walk.new(source.args[0]) if source is not None and is_dropout else None
        if name in _SHAPING and _keeps_shape(value):
            return walk.new(value.args[0])
        if name in _PAIRWISE:
            return _pairwise(walk, value)
        if name == "permute_dims":
            return _composed(walk, value)
        return None

    return rewrite_main(mod, rule)


def _keeps_shape(call: relax.Expr) -> bool:
    before, after = static_shape(call.args[0]), static_shape(call)
    if before is None or before != after:
        return False
    if op_name(call) != "permute_dims":
        return True
    axes = call.attrs.axes
    return axes is not None and integers(axes) == list(range(len(after or ())))


def _composed(walk: Walk, outer: relax.Expr) -> relax.Expr | None:
    """A transpose of a transpose as one, or as none."""
    inner = walk.definition(outer.args[0])
    if inner is None or op_name(inner) != "permute_dims" or inner.attrs.axes is None or outer.attrs.axes is None:
        return None
    inner_axes = integers(inner.attrs.axes)
    axes = [inner_axes[axis] for axis in integers(outer.attrs.axes)]
    source = walk.new(inner.args[0])
    return source if axes == sorted(axes) else relax.op.permute_dims(source, axes)


def _pairwise(walk: Walk, reduction: relax.Expr) -> relax.Expr | None:
    """``reduce(stack(xs, axis=0), axis=0)`` as a chain of binary operators."""
    stacked = walk.definition(reduction.args[0])
    if stacked is None or op_name(stacked) != "stack" or reduction.attrs.keepdims:
        return None
    if reduction.attrs.axis is None or integers(reduction.attrs.axis) != [0] or int(stacked.attrs.axis or 0) != 0:
        return None
    operands = [walk.new(operand) for operand in stacked.args[0].fields]
    return reduce(lambda left, right: walk.emit(_PAIRWISE[op_name(reduction)](left, right)), operands)
