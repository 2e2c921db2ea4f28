"""Operators as the TVM frontend wants them, where it is stricter than ONNX."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from tuner.frontend.tensors import TensorSpec


def repair_operators(graph: onnx.GraphProto, known: Mapping[str, TensorSpec]) -> None:
    """Rewrite in place what would be refused without need.

    ``Pow(x: float32, 2: int64)`` → ``Pow(x, 2.0)``: ONNX allows exponents of another type, Relax does not.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Pow" or node.input[0] not in known or node.input[1] not in constants:
            continue
        base = known[node.input[0]]
        exponent = numpy_helper.to_array(constants[node.input[1]])
        if exponent.dtype.name != base.dtype and base.dtype.startswith("float"):
            # Its own name: other operators may read the same constant as an integer.
            name = f"{node.input[1]}.as_{base.dtype}"
            if name not in constants:
                graph.initializer.append(numpy_helper.from_array(exponent.astype(base.dtype), name))
                constants[name] = graph.initializer[-1]
            node.input[1] = name
