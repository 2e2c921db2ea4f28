"""Reading an uploaded ONNX file: bytes → a parsed, checked model, or an error that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import onnx
from onnx import checker, defs, inliner

from tuner.errors import ModelError
from tuner.frontend.gate import admit
from tuner.frontend.walk import ONNX_DOMAINS, all_graphs, all_nodes

NEWEST_OPSET = defs.onnx_opset_version()
_MODEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_GRAPH = 7


def load_model(path: Path) -> onnx.ModelProto:
    """The model in that file, checked, with its local functions inlined.

    Raises `ModelError` with code ``not_onnx``, ``truncated_model``, ``unsupported_opset``, ``model_invalid``, or one of
    `admit`'s. The file is read once; nothing beside it is ever opened.
    """
    data = path.read_bytes()
    model = parse_model(data)
    admit(model)
    default_opset(model)
    _check(model, data)
    if any(graph.sparse_initializer for graph in all_graphs(model)):
        raise ModelError(
            "The model stores weights as sparse tensors, which cannot be imported.",
            code="sparse_weights",
            hint="Export the model with dense weights.",
        )
    return inliner.inline_local_functions(model) if model.functions else model


def parse_model(data: bytes) -> onnx.ModelProto:
    """Parse the bytes of a model; raises `ModelError` (``not_onnx`` or ``truncated_model``)."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, whose package is not a dependency of ours
        raise _unreadable(data) from error
    if not model.HasField("graph") or not model.ir_version:
        raise _unreadable(data)
    if not model.graph.node or not model.graph.output:
        raise ModelError(
            "The model's graph is empty: it has no operators or no outputs.",
            hint="Export the model again; the file may have been cut or written before the graph was built.",
        )
    return model


def default_opset(model: onnx.ModelProto) -> int:
    """The version of the default operator set; raises `ModelError` (``unsupported_opset``)."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS]
    if not versions:
        if any(node.domain in ONNX_DOMAINS for node in all_nodes(model)):
            raise ModelError(
                "The model does not say which ONNX opset it uses.",
                code="unsupported_opset",
                hint="Set opset_import when exporting, for example opset_version=17.",
            )
        return NEWEST_OPSET
    if versions[0] < 1 or versions[0] > NEWEST_OPSET:
        raise ModelError(
            f"The model uses opset {versions[0]}; opsets 1 to {NEWEST_OPSET} can be imported.",
            code="unsupported_opset",
            hint="Export the model with an older opset, for example opset_version=17.",
            details={"opset": versions[0], "newest": NEWEST_OPSET},
        )
    return versions[0]


def _check(model: onnx.ModelProto, data: bytes) -> None:
    """Run onnx.checker; unknown ranks of inputs and outputs, which it refuses and exporters write, are allowed."""
    without_rank = [
        value.type.tensor_type
        for value in [*model.graph.input, *model.graph.output]
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    ]
    for tensor_type in without_rank:
        tensor_type.shape.SetInParent()
    try:
        checker.check_model(model if without_rank else data)
    except checker.ValidationError as error:
        raise ModelError(f"onnx.checker refuses the model: {_first_lines(error)}") from error
    for tensor_type in without_rank:
        tensor_type.ClearField("shape")


def _unreadable(data: bytes) -> ModelError:
    """Why protobuf could not read it: a file that starts like a model and ends too early was truncated."""
    found = _top_level(data)
    if found == "cut":
        return ModelError(
            f"The file starts like an ONNX model but ends early, after {len(data)} bytes: it is truncated.",
            code="truncated_model",
            hint="Upload the file again and compare its size with the original.",
        )
    if found == "whole":
        return ModelError(
            "The file is an ONNX model with parts that cannot be read.",
            code="not_onnx",
            hint="It is damaged, or nests deeper than protobuf allows (100 messages): export the model again.",
        )
    return ModelError(
        "This is not an ONNX file.",
        code="not_onnx",
        hint="Upload a .onnx file: export the model with torch.onnx.export, tf2onnx or skl2onnx first.",
    )


def _top_level(data: bytes) -> Literal["cut", "whole", "foreign"]:
    """What the fields of the top level say: a model's that end too early, all of a model's, or something else's.

    Follows the protobuf wire format (varint tags, wire types 0 and 2 are the only ones in ``ModelProto``).
    """
    at, seen = 0, set[int]()
    while at < len(data):
        tag, after = _varint(data, at)
        if after is None:
            return "cut" if seen else "foreign"
        number, kind = tag >> 3, tag & 7
        if number not in _MODEL_FIELDS or kind not in (0, 2):
            return "foreign"
        value, after_value = _varint(data, after)
        if after_value is None:
            return "cut" if seen else "foreign"
        at = after_value + (value if kind == 2 else 0)
        if at > len(data):
            return "cut" if seen or number == 1 else "foreign"
        seen.add(number)
    if not seen:
        return "foreign"
    return "whole" if _GRAPH in seen else "cut"


def _varint(data: bytes, at: int) -> tuple[int, int | None]:
    value = 0
    for count, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    return value, None


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:500]
