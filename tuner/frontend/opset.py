"""Opset conversion, where it helps: the TVM frontend silently reads old operators as their newer selves."""

from __future__ import annotations

import logging

import onnx
from onnx import defs, version_converter

from tuner.frontend.load import default_opset
from tuner.frontend.operators import oldest_converter_version
from tuner.frontend.walk import ONNX_DOMAINS, all_nodes

log = logging.getLogger(__name__)
_LOWEST_TARGET = 13


def convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at an opset that the frontend reads correctly, or the model itself.

    A node needs conversion when the frontend's oldest converter is newer than the model's opset *and* the
    operator's signature changed in between (Slice's attributes became inputs at 10, Resize got a region of
    interest at 11, …). Where ONNX's converter fails, the original is kept: verification decides.
    """
    opset = default_opset(model)
    wanted = wanted_opset(model)
    if wanted <= opset:
        return model
    try:
        return version_converter.convert_version(model, wanted)
    except Exception as error:  # the converter raises bare RuntimeErrors, one kind per adapter
        log.warning("The model stays at opset %d; conversion to %d failed: %s", opset, wanted, str(error)[:200])
        return model


def wanted_opset(model: onnx.ModelProto) -> int:
    """The opset that the model should be converted to, or its own."""
    opset = default_opset(model)
    wanted = opset
    for name in {node.op_type for node in all_nodes(model) if node.domain in ONNX_DOMAINS}:
        oldest = oldest_converter_version(name)
        if oldest is not None and oldest > opset and _signature(name, opset) != _signature(name, oldest):
            wanted = max(wanted, oldest, _LOWEST_TARGET)
    return wanted


def _signature(name: str, opset: int) -> tuple[object, ...]:
    try:
        schema = defs.get_schema(name, max_inclusive_version=opset)
    except defs.SchemaError:
        return ()
    attributes = sorted((attribute.name, str(attribute.type)) for attribute in schema.attributes.values())
    return tuple(value.name for value in schema.inputs), tuple(attributes)
