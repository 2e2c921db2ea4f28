"""The shipped examples are what the documentation says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_mobilenet_v2", EXAMPLES / "build_mobilenet_v2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_mobilenet_v2"] = module
    spec.loader.exec_module(module)
    return module


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Of the convolutions and linear layers, from inferred shapes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    weights = {weight.name: weight.dims for weight in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:]))
        elif node.op_type == "Gemm":
            total += int(np.prod(weights[node.input[1]]))
    return total


def test_the_digits_network_is_small_static_and_big_enough_to_tune() -> None:
    path = EXAMPLES / "digits_cnn.onnx"
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert path.stat().st_size < 1_000_000
    assert 2 * multiply_accumulates(model) >= 20_000_000
    assert {i.data_location for i in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert model.opset_import[0].version >= 17


def test_the_digits_network_reads_the_held_out_pictures() -> None:
    held_out = np.load(EXAMPLES / "digits_test.npz", allow_pickle=False)
    images, labels = held_out["images"], held_out["labels"]
    assert images.shape == (360, 1, 32, 32)
    assert images.dtype == np.float32
    session = onnxruntime.InferenceSession(EXAMPLES / "digits_cnn.onnx", providers=["CPUExecutionProvider"])
    right = [
        session.run(None, {"image": image[None]})[0].argmax() == label
        for image, label in zip(images, labels, strict=True)
    ]
    assert np.mean(right) >= 0.98
    assert len(set(labels.tolist())) == 10


@pytest.mark.parametrize("clip", [True, False])
def test_mobilenet_v2_runs_with_activations_of_a_sane_size(builder: ModuleType, clip: bool) -> None:
    model = builder.mobilenet_v2(width=0.35, resolution=64, classes=10, clip=clip)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    one, other = (
        session.run(None, {"image": rng.standard_normal((1, 3, 64, 64)).astype(np.float32)})[0] for _ in range(2)
    )
    assert 0.05 < one.std() < 20
    assert np.abs(one - other).max() > 1e-3


def test_mobilenet_v2_has_the_published_size(builder: ModuleType) -> None:
    """The paper gives 3.4 M parameters and 300 M multiply-adds at width 1.0 and 224 pixels."""
    model = builder.mobilenet_v2()
    parameters = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer)
    assert parameters == pytest.approx(3.4e6, rel=0.05)
    assert multiply_accumulates(model) == pytest.approx(300e6, rel=0.05)
