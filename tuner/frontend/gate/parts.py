"""Everything that a model consists of, found by its schema: no field can be forgotten where something hides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx

from tuner.errors import ModelError
from tuner.frontend.gate.limits import MAX_MESSAGES, MAX_NESTING, MAX_NODES, require_count

# Texts that nothing is named by: they may be in any encoding.
_FOR_PEOPLE = frozenset({"doc_string", "producer_name", "producer_version", "value"})


@dataclass(kw_only=True)
class Parts:
    """The messages of a model by kind, at every depth: in branches and bodies, functions, default attributes of
    functions, sparse tensors, and what is there for training only."""

    graphs: list[onnx.GraphProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    attributes: list[onnx.AttributeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    types: list[onnx.TypeProto.Tensor] = field(default_factory=list)


def parts_of(model: onnx.ModelProto) -> Parts:
    """Find them; raises `TooComplex` as soon as there are too many, or graphs nest too deeply."""
    parts = Parts()
    lists: dict[type, list[Any]] = {
        onnx.GraphProto: parts.graphs,
        onnx.NodeProto: parts.nodes,
        onnx.AttributeProto: parts.attributes,
        onnx.TensorProto: parts.tensors,
        onnx.TypeProto.Tensor: parts.types,
    }
    for count, (message, nesting) in enumerate(_messages(model), start=1):
        require_count("parts", count, MAX_MESSAGES, limit="messages")
        require_count("graphs inside of graphs", nesting, MAX_NESTING, limit="nesting")
        kind = lists.get(type(message))
        if kind is not None:
            kind.append(message)
    require_count("operators", len(parts.nodes), MAX_NODES, limit="nodes")
    return parts


def _messages(model: onnx.ModelProto) -> Iterator[tuple[Any, int]]:
    """Every message, and how many graphs it lies in beside the main one."""
    left: list[tuple[Any, int]] = [(model, -1)]
    while left:
        message, nesting = left.pop()
        nesting += isinstance(message, onnx.GraphProto)
        yield message, max(nesting, 0)
        if isinstance(message, onnx.TensorProto):
            _require_text([message.name])
            continue  # nothing is nested below, and reading its fields would copy the weights
        for descriptor, value in message.ListFields():
            if descriptor.message_type is not None:
                children = [value] if hasattr(value, "ListFields") else value
                left.extend((child, nesting) for child in children)
            elif descriptor.type == descriptor.TYPE_STRING and descriptor.name not in _FOR_PEOPLE:
                _require_text([value] if isinstance(value, str | bytes) else value)


def _require_text(values: Iterable[str | bytes]) -> None:
    """Raises `ModelError` (``model_invalid``) for what protobuf gives as bytes, since it is no UTF-8."""
    for value in values:
        if isinstance(value, bytes):
            raise ModelError(
                f"A name in the model is no UTF-8 text: {value[:40]!r}.",
                hint="The file is damaged, or was written by a faulty exporter: export the model again.",
            )
