"""What tensors and attributes contain: as much as they say, and not more than is taken."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import onnx
from onnx import helper

from tuner.errors import ModelError
from tuner.frontend.gate.limits import (
    MAX_ATTRIBUTE_NUMBERS,
    MAX_ELEMENTS,
    MAX_NAME_BYTES,
    MAX_OPERANDS,
    MAX_RANK,
    MAX_TEXT_BYTES,
    require_count,
)

_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
# Two or four elements share a byte: onnx.checker knows how long they are.
_PACKED = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
    if hasattr(onnx.TensorProto, name)
)


def require_tensors(tensors: Iterable[onnx.TensorProto]) -> None:
    """Raises `TooComplex` for a rank or a size beyond the limits, and `ModelError` (``model_invalid``) for a type that
    does not exist, negative sizes, and raw bytes that are more or fewer than shape and type say."""
    for tensor in tensors:
        require_count("dimensions of one tensor", len(tensor.dims), MAX_RANK, limit="rank")
        if tensor.data_type not in _TYPES:
            raise _invalid(tensor, f"is of type {tensor.data_type}, which does not exist")
        if any(size < 0 for size in tensor.dims):
            raise _invalid(tensor, f"has a negative size in its shape {list(tensor.dims)}")
        elements = prod(tensor.dims)
        require_count("elements in one tensor", elements, MAX_ELEMENTS, limit="elements", code="model_too_large")
        if tensor.HasField("raw_data") and tensor.data_type not in _PACKED | {onnx.TensorProto.STRING}:
            expected_bytes = elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            found_bytes = len(tensor.raw_data)
            if found_bytes != expected_bytes:
                raise _invalid(tensor, f"has {found_bytes} bytes, where shape and type say {expected_bytes}")


def require_attributes(attributes: Iterable[onnx.AttributeProto]) -> None:
    """Raises `TooComplex` for lists and texts beyond the limits."""
    for attribute in attributes:
        numbers = max(len(attribute.ints), len(attribute.floats), len(attribute.strings), len(attribute.tensors))
        require_count("values in one attribute", numbers, MAX_ATTRIBUTE_NUMBERS, limit="attribute_numbers")
        text_bytes = max([len(attribute.s), *map(len, attribute.strings)])
        require_count("bytes in one text of an attribute", text_bytes, MAX_TEXT_BYTES, limit="text_bytes")


def require_operands(nodes: Iterable[onnx.NodeProto], graphs: Iterable[onnx.GraphProto]) -> None:
    """Raises `TooComplex` for too many inputs and outputs, and for names beyond the limit."""
    for node in nodes:
        require_count("operands of one operator", len(node.input) + len(node.output), MAX_OPERANDS, limit="operands")
        _require_names([node.name, node.op_type, node.domain, *node.input, *node.output])
    for graph in graphs:
        require_count("inputs or outputs of one graph", _values(graph), MAX_OPERANDS, limit="operands")
        _require_names([value.name for value in [*graph.input, *graph.output, *graph.value_info]])
        _require_names([tensor.name for tensor in graph.initializer])


def _values(graph: onnx.GraphProto) -> int:
    constants = {tensor.name for tensor in graph.initializer}  # listed among the inputs up to IR 3
    return max(sum(value.name not in constants for value in graph.input), len(graph.output))


def _require_names(names: Iterable[str]) -> None:
    longest = max((len(name) for name in names), default=0)
    require_count("characters in one name", longest, MAX_NAME_BYTES, limit="name_bytes")


def _invalid(tensor: onnx.TensorProto, what: str) -> ModelError:
    return ModelError(
        f"Tensor {tensor.name[:200] or '(unnamed)'!r} {what}.",
        hint="The file is damaged, or was written by a faulty exporter: export the model again.",
    )
