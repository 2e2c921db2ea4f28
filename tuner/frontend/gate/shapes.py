"""Ranks and sizes of values, as a file declares them and as they are inferred."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import onnx

from tuner.errors import ModelError
from tuner.frontend.gate.limits import MAX_ELEMENTS, MAX_RANK, require_count
from tuner.frontend.walk import all_graphs, all_nodes

# Which operands are such lists.
_AXES = {
    **dict.fromkeys(("Unsqueeze", "Squeeze", "Reshape", "Expand", "Tile", "Upsample"), (1,)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"), (1,)),
    **dict.fromkeys(("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "CenterCropPad"), (1,)),
    "ConstantOfShape": (0,),
    "Pad": (1, 3),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}
_TYPES = frozenset(onnx.TensorProto.DataType.values())


def require_types(types: Iterable[onnx.TypeProto.Tensor]) -> None:
    """Raises `TooComplex` for a rank beyond the limit, `ModelError` (``model_invalid``) for a type that does not exist.

    Sizes are left to `require_shapes`: what a file declares of values in between is stale often, and not used.
    """
    for each in types:
        require_count("dimensions of one value", len(each.shape.dim), MAX_RANK, limit="rank")
        if each.elem_type not in _TYPES:
            raise ModelError(
                f"A value of the model has elements of type {each.elem_type}, which does not exist.",
                hint="The file is damaged, or was written by a faulty exporter: export the model again.",
            )


def require_axes(model: onnx.ModelProto) -> None:
    """Raises `TooComplex` for a constant list of axes, sizes or bounds that is too long, at any depth.

    Shape inference does not see the contents of long constants, so it would find no rank beyond the limit there.
    """
    lengths = {
        tensor.name: tensor.dims[0] for graph in all_graphs(model) for tensor in graph.initializer if tensor.dims
    }
    for node in all_nodes(model):
        if node.op_type == "Constant":
            lengths.update(
                (node.output[0], given.t.dims[0]) for given in node.attribute if given.HasField("t") and given.t.dims
            )
    for node in all_nodes(model):
        for position in _AXES.get(node.op_type, ()):
            # Pad has two numbers for each dimension.
            length = lengths.get(node.input[position], 0) if position < len(node.input) else 0
            require_count("dimensions of one value", length, 2 * MAX_RANK, limit="rank")


def require_elements(sizes: Iterable[int]) -> None:
    """Raises `TooComplex` (``model_too_large``) when a value of that shape has more elements than an index reaches."""
    require_count("elements in one value", prod(sizes), MAX_ELEMENTS, limit="elements", code="model_too_large")


def require_shapes(inferred: onnx.ModelProto) -> None:
    """Hold every value of a model whose shapes were inferred to the limits, at every depth; raises `TooComplex`."""
    for graph in all_graphs(inferred):
        for value in (*graph.input, *graph.value_info, *graph.output):
            dimensions = value.type.tensor_type.shape.dim
            require_count("dimensions of one value", len(dimensions), MAX_RANK, limit="rank")
            if all(dimension.HasField("dim_value") for dimension in dimensions):
                require_elements(dimension.dim_value for dimension in dimensions)
