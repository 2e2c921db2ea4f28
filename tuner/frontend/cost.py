"""What one inference costs, from the ONNX graph alone: operations, weights, activations."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx

from tuner.frontend.tensors import TensorSpec
from tuner.frontend.walk import outer_values

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "ConvInteger", "Einsum", "Attention"})
# fmt: off
_FREE = frozenset({
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Transpose", "Concat", "Split",
    "Slice", "Gather", "Shape", "Constant", "Cast", "Pad",
})
# fmt: on
# Compilers let these write over their first input when nothing else reads it, or fuse them into its producer.
# fmt: off
_IN_PLACE = frozenset({
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Selu", "Gelu",
    "Erf", "Exp", "Log", "Sqrt", "Neg", "Abs", "Add", "Sub", "Mul", "Div", "Pow", "BatchNormalization",
    "Dropout", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Softmax", "Sum", "Cast", "Mish",
    "Softplus",
})
# fmt: on


def count_flops(graph: onnx.GraphProto, known: Mapping[str, TensorSpec]) -> tuple[float, int]:
    """Floating-point operations of one inference (a multiply-add is two), and the number of heavy operators.

    Nodes with values of unknown shape count nothing.
    """
    total, heavy = 0.0, 0
    for node in graph.node:
        total += node_flops(node, known)
        heavy += node.op_type in _HEAVY
    return total, heavy


def count_weight_bytes(graph: onnx.GraphProto, known: Mapping[str, TensorSpec]) -> int:
    """Bytes of all constants."""
    return sum(known[tensor.name].size_bytes for tensor in graph.initializer if tensor.name in known)


def peak_activation_bytes(graph: onnx.GraphProto, known: Mapping[str, TensorSpec]) -> int:
    """The largest sum of tensors alive at once, network inputs and outputs included, constants not.

    Nodes run in file order; elementwise operators work in place where nothing else reads their operand. An
    estimate for planning: the compiler's own figure depends on its fusion.
    """
    last_use: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in outer_values(node):
            last_use[name] = index
    for value in graph.output:
        last_use[value.name] = len(graph.node)
    alive = {value.name: known[value.name].size_bytes for value in graph.input if value.name in known}
    peak = sum(alive.values())
    for index, node in enumerate(graph.node):
        reused = _reused_operand(node, index, last_use, alive, known)
        if reused is not None:
            alive[node.output[0]] = alive.pop(reused)
        for name in node.output:
            if name in known and name not in alive:
                alive[name] = known[name].size_bytes
        peak = max(peak, sum(alive.values()))
        for name in [name for name in alive if last_use.get(name, -1) <= index]:
            del alive[name]
    return peak


def _reused_operand(
    node: onnx.NodeProto,
    index: int,
    last_use: Mapping[str, int],
    alive: Mapping[str, int],
    known: Mapping[str, TensorSpec],
) -> str | None:
    if node.op_type not in _IN_PLACE or node.output[0] not in known:
        return None
    size = known[node.output[0]].size_bytes
    return next((name for name in node.input if alive.get(name) == size and last_use.get(name) == index), None)


def node_flops(node: onnx.NodeProto, known: Mapping[str, TensorSpec]) -> float:
    """Those of one node; 0 where its output is of unknown shape, or only moves data."""
    output = known.get(node.output[0])
    operands = [known.get(name) for name in node.input if name]
    if output is None or node.op_type in _FREE:
        return 0.0
    elements = prod(output.shape)
    first = operands[0] if operands else None
    second = operands[1] if len(operands) > 1 else None
    attributes = {attribute.name: attribute for attribute in node.attribute}
    match node.op_type:
        case "Conv" if second is not None:
            return 2.0 * elements * prod(second.shape[1:])
        case "ConvTranspose" if first is not None and second is not None:
            return 2.0 * prod(first.shape) * prod(second.shape[1:])
        case "Gemm" if first is not None:
            transposed = "transA" in attributes and attributes["transA"].i
            return 2.0 * elements * first.shape[0 if transposed else 1]
        case "MatMul" | "MatMulInteger" if first is not None:
            return 2.0 * elements * first.shape[-1]
        case "MaxPool" | "AveragePool" | "LpPool":
            return float(elements * prod(attributes["kernel_shape"].ints))
    # Everything else reads each operand or writes each element about once.
    return float(max([elements, *(prod(spec.shape) for spec in operands if spec is not None)]))
