"""The values that shape inference computes with: ONNX propagates the contents of integer vectors without a limit.

A vector that is joined with itself forty times would be a terabyte of them, and so would a Range of a trillion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from tuner.frontend.gate.limits import MAX_PROPAGATED_VALUES, MAX_RANK, require_count
from tuner.frontend.walk import subgraphs

_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
# Far beyond every limit, and short of numbers with thousands of digits.
_HUGE = 2**64


class _Vector(NamedTuple):
    """What is known of an integer vector (or a number) without computing it: how long it is, and how large its largest
    element is at most."""

    length: int
    bound: int


def require_propagation(model: onnx.ModelProto) -> None:
    """Raises `TooComplex` when there would be too many of them, over all operators at every depth.

    A lower bound: sizes that are known to inference alone are taken for those of the inputs.
    """
    sizes = [size.dim_value for value in model.graph.input for size in value.type.tensor_type.shape.dim]
    shape = _Vector(MAX_RANK, max(sizes, default=0))
    found = _propagated(model.graph, {}, shape)
    require_count("values to infer shapes from", found, MAX_PROPAGATED_VALUES, limit="propagated_values")


def _propagated(graph: onnx.GraphProto, outer: Mapping[str, _Vector], shape: _Vector) -> int:
    known = {**outer}
    for tensor in graph.initializer:
        _add(known, [tensor.name], _constant(tensor))
    total = 0
    for node in graph.node:
        total += sum(_propagated(below, known, shape) for below in subgraphs(node))
        made = _made(node, known, shape)
        total += _add(known, node.output, made)
    return total


def _add(known: dict[str, _Vector], names: Iterable[str], made: _Vector | None) -> int:
    if made is None:
        return 0
    short = _Vector(min(made.length, _HUGE), min(made.bound, _HUGE))
    known.update(dict.fromkeys(names, short))
    return short.length


def _made(node: onnx.NodeProto, known: Mapping[str, _Vector], shape: _Vector) -> _Vector | None:
    """What an operator hands on; one that propagates nothing counts as its longest and largest operand."""
    if node.op_type in ("Shape", "Size"):
        return shape
    if node.op_type == "Constant":
        return next((found for given in node.attribute if (found := _constant_of(given)) is not None), None)
    operands = [known[name] for name in node.input if name in known]
    if not operands:
        return None
    length, bound = max(each.length for each in operands), max(each.bound for each in operands)
    match node.op_type:
        case "Concat":
            return _Vector(sum(each.length for each in operands), bound)
        case "Add" | "Sub" | "Sum":
            return _Vector(length, sum(each.bound for each in operands))
        case "Mul":
            return _Vector(length, int(np.prod([each.bound for each in operands], dtype=object)))
        case "Range" if len(operands) == 3:
            start, limit, step = operands
            return _Vector((start.bound + limit.bound) // max(step.bound, 1), start.bound + limit.bound)
    return _Vector(length, bound)


def _constant_of(attribute: onnx.AttributeProto) -> _Vector | None:
    if attribute.HasField("t"):
        return _constant(attribute.t)
    if attribute.HasField("i"):
        return _Vector(1, abs(attribute.i))
    return _Vector(len(attribute.ints), max(map(abs, attribute.ints))) if attribute.ints else None


def _constant(tensor: onnx.TensorProto) -> _Vector | None:
    if tensor.data_type not in _INTEGERS or len(tensor.dims) > 1:
        return None
    values = numpy_helper.to_array(tensor)
    return _Vector(values.size, max(abs(int(values.min())), abs(int(values.max())))) if values.size else None
