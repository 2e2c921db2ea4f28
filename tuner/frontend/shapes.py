"""Binding every dimension of the inputs, and inferring every shape behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, shape_inference

from tuner.errors import MissingDimensions, ModelError
from tuner.frontend.gate import (
    propagated_values,
    require_axes,
    require_constants,
    require_elements,
    require_shapes,
)
from tuner.frontend.gate.limits import MAX_PROPAGATED_VALUES
from tuner.frontend.tensors import TensorSpec
from tuner.frontend.values import static_spec

_BATCH_NAMES = re.compile(r"^(n|b|bs|batch|batch_?size|batch_?dim|none|\?|dynamic|unk.*|.*batch.*)?$", re.IGNORECASE)
# fmt: off
_DTYPES = frozenset({
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "bool",
})
# fmt: on

# Shape inference copies its model; weights above this many elements are shown to it by type only. Operands
# that decide shapes (Reshape, Slice, Resize, …) are far smaller.
_KEPT_ELEMENTS = 4096


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller gives: up to IR 3 every initializer is listed as an input too."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def bind_input_shapes(model: onnx.ModelProto, input_shapes: Mapping[str, tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    """Make every input static, in place, and return the inputs in order.

    Dimensions come from ``input_shapes``, then from equally named dimensions of other inputs, then batch = 1
    for a leading dimension. Raises `ModelError` (``unknown_input``, ``shape_mismatch``, ``unsupported_input``,
    ``model_too_large``) or `MissingDimensions` naming every dimension that is left.
    """
    inputs = real_inputs(model.graph)
    _refuse_unknown_names(inputs, input_shapes)
    named: dict[str, int] = {}
    shapes: dict[str, list[int | str | None] | None] = {}
    for value in inputs:
        shapes[value.name] = _declared_shape(value)
        if value.name in input_shapes:
            shapes[value.name] = _given_shape(value.name, shapes[value.name], input_shapes[value.name], named)
    missing: list[dict[str, object]] = []
    for name, shape in shapes.items():
        if shape is None:
            missing.append({"input": name, "axis": None, "name": None})
            continue
        for axis, dimension in enumerate(shape):
            if isinstance(dimension, int):
                continue
            if dimension in named:
                shape[axis] = named[dimension]
            elif axis == 0 and _is_batch(shape):
                shape[axis] = 1
                if dimension:
                    named[dimension] = 1
            else:
                missing.append({"input": name, "axis": axis, "name": dimension})
    if missing:
        raise _missing(missing)
    bound = []
    for value in inputs:
        shape = shapes[value.name]
        assert shape is not None
        spec = TensorSpec(name=value.name, shape=tuple(int(d or 0) for d in shape), dtype=_dtype_name(value))
        require_elements(spec.shape)
        value.type.tensor_type.shape.CopyFrom(helper.make_tensor_type_proto(1, spec.shape).tensor_type.shape)
        bound.append(spec)
    return tuple(bound)


def infer_shapes(model: onnx.ModelProto, *, propagate: bool = True) -> dict[str, TensorSpec]:
    """Static type of every value whose shape can be inferred; values of unknown shape are absent.

    With ``propagate`` also where shapes are computed from other shapes, unless that would take too much memory. Raises
    `ModelError` (``shape_mismatch``) when the operators contradict the input shapes, and what the gate raises for
    shapes and for constants below the main graph.
    """
    require_axes(model)
    light = _without_weights(model)
    inferred = _infer(light, strict=False)
    if propagate:
        inferred = _infer(light, data_prop=propagated_values(inferred) <= MAX_PROPAGATED_VALUES)
    require_constants(inferred)
    known: dict[str, TensorSpec] = {}
    for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        spec = static_spec(value)
        if spec is not None:
            known[value.name] = spec
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.STRING:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).name
            known[tensor.name] = TensorSpec(name=tensor.name, shape=tuple(tensor.dims), dtype=dtype)
    return known


def _infer(light: onnx.ModelProto, *, strict: bool = True, data_prop: bool = False) -> onnx.ModelProto:
    try:
        inferred = shape_inference.infer_shapes(light, check_type=True, strict_mode=strict, data_prop=data_prop)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:500]
        raise ModelError(
            f"The operators do not fit the input shapes: {reason}",
            code="shape_mismatch",
            hint="Check the shapes given for the inputs against those that the model was exported with.",
        ) from error
    require_shapes(inferred)
    return inferred


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for shape inference: no stale annotations, and large weights as typed inputs without data."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(real_inputs(model.graph))
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.int64)) <= _KEPT_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    given = {value.name: value.type for value in light.graph.input}
    for value in model.graph.output:
        # Exported output shapes may name the unbound batch, or be stale: only the element type is kept.
        output = light.graph.output.add(name=value.name, type=given.get(value.name, value.type))
        if output.type.HasField("tensor_type") and output.name not in given:
            output.type.tensor_type.ClearField("shape")
    return light


def _declared_shape(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    if not value.type.HasField("tensor_type") or _dtype_name(value) not in _DTYPES:
        raise ModelError(
            f"Input {value.name!r} is not a numeric tensor.",
            code="unsupported_input",
            hint="Only models whose inputs are tensors of numbers can be tuned.",
        )
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [
        dimension.dim_value if dimension.dim_value > 0 else (dimension.dim_param or None)
        for dimension in value.type.tensor_type.shape.dim
    ]


def _dtype_name(value: onnx.ValueInfoProto) -> str:
    element = value.type.tensor_type.elem_type
    if element in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return "unknown"
    return np.dtype(helper.tensor_dtype_to_np_dtype(element)).name


def _refuse_unknown_names(inputs: list[onnx.ValueInfoProto], given: Mapping[str, tuple[int, ...]]) -> None:
    names = [value.name for value in inputs]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ModelError(
            f"The model has no input named {', '.join(map(repr, unknown))}.",
            code="unknown_input",
            hint=f"Its inputs are: {', '.join(names)}.",
            details={"unknown": unknown, "inputs": names},
        )


def _given_shape(
    name: str,
    declared: list[int | str | None] | None,
    given: tuple[int, ...],
    named: dict[str, int],
) -> list[int | str | None]:
    problem = ""
    if any(size <= 0 for size in given):
        problem = "every size must be positive"
    elif declared is not None and len(declared) != len(given):
        problem = f"it has {len(declared)} dimensions, not {len(given)}"
    else:
        for axis, (size, dimension) in enumerate(zip(given, declared or given, strict=True)):
            fixed = named.get(dimension, size) if isinstance(dimension, str) else dimension
            if fixed is not None and fixed != size:
                problem = f"dimension {axis} is fixed to {fixed} by the model, not {size}"
            elif isinstance(dimension, str):
                named[dimension] = size
    if problem:
        raise ModelError(
            f"The shape {'x'.join(map(str, given))} does not fit input {name!r}: {problem}.",
            code="shape_mismatch",
            hint=f"The model declares {name}: {_shown(declared)}.",
            details={"input": name, "given": list(given), "declared": declared},
        )
    return list(given)


def _is_batch(shape: list[int | str | None]) -> bool:
    """A leading dimension is a batch when it is named like one, or when it is the only unknown one."""
    leading = shape[0]
    return bool(_BATCH_NAMES.match(str(leading or ""))) or all(isinstance(size, int) for size in shape[1:])


def _missing(missing: list[dict[str, object]]) -> MissingDimensions:
    shown = [
        f"{entry['input']} (its rank is unknown)"
        if entry["axis"] is None
        else f"{entry['input']} axis {entry['axis']}" + (f" ({entry['name']})" if entry["name"] else "")
        for entry in missing
    ]
    return MissingDimensions(
        f"These dimensions of the inputs need a size: {', '.join(shown)}.", details={"dimensions": missing}
    )


def _shown(declared: list[int | str | None] | None) -> str:
    return "unknown rank" if declared is None else "x".join(str(size or "?") for size in declared) or "a scalar"
