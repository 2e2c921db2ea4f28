"""Ranks and sizes of values, as a file declares them and as they are inferred."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import onnx

from tuner.errors import ModelError
from tuner.frontend.gate.limits import MAX_ELEMENTS, MAX_RANK, require_count
from tuner.frontend.walk import all_graphs

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
