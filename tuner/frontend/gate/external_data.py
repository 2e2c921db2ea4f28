"""Tensors in other files: refused wherever they are, before anything could open one.

A path in a model is a stranger's: ``../../etc/shadow``, absolute, or through a link. None is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from tuner.errors import ModelError


def refuse_external_data(tensors: Iterable[onnx.TensorProto]) -> None:
    """Raises `ModelError` (``external_data``)."""
    outside = [
        tensor.name or "(unnamed)"
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data
    ]
    if outside:
        raise ModelError(
            f"{len(outside)} tensors of the model lie in other files ({', '.join(outside[:3])}"
            f"{', …' if len(outside) > 3 else ''}); a single file is needed.",
            code="external_data",
            hint="Save it as one file: onnx.save_model(onnx.load(path), new_path, save_as_external_data=False).",
            details={"tensors": outside[:50], "count": len(outside)},
        )
