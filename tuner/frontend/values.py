"""The types of an ONNX graph's values."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tuner.frontend.tensors import TensorSpec


def static_spec(value: onnx.ValueInfoProto) -> TensorSpec | None:
    """The type of a value, if it is a tensor of static shape."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    element = value.type.tensor_type.elem_type
    if element in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return None
    if any(not dimension.HasField("dim_value") for dimension in dimensions):
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(element)).name
    return TensorSpec(name=value.name, shape=tuple(d.dim_value for d in dimensions), dtype=dtype)
