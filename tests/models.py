"""Small ONNX models for the tests, each with one property that something has to handle. Weights are seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10


def convolutional(*, seed: int = 0, channels: int = 16, side: int = 16, classes: int = 10) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, GlobalAveragePool, Flatten, Gemm: input ``image`` (1, 3, side, side), output ``logits``."""
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["conv"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("MaxPool", ["relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2], name="max_pool"),
        helper.make_node("GlobalAveragePool", ["pooled"], ["averaged"], name="average_pool"),
        helper.make_node("Flatten", ["averaged"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], transB=1, name="fc"),
    ]
    rng = np.random.default_rng(seed)
    weights = {
        "conv.weight": _weight(rng, channels, 3, 3, 3),
        "conv.bias": _weight(rng, channels),
        "fc.weight": _weight(rng, classes, channels),
        "fc.bias": _weight(rng, classes),
    }
    return _model(nodes, weights, inputs={"image": [1, 3, side, side]}, outputs={"logits": [1, classes]})


def two_convolutions(*, seed: int = 0, channels: int = 16, side: int = 16) -> onnx.ModelProto:
    """Two 3x3 convolutions of different shape and a residual addition, so that there are several tasks."""
    nodes = [
        helper.make_node("Conv", ["image", "first.weight", "first.bias"], ["first"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Relu", ["first"], ["first_relu"], name="first_relu"),
        helper.make_node(
            "Conv", ["first_relu", "second.weight", "second.bias"], ["second"], pads=[1, 1, 1, 1], name="second"
        ),
        helper.make_node("Add", ["second", "first_relu"], ["sum"], name="residual"),
        helper.make_node("Relu", ["sum"], ["features"], name="last_relu"),
    ]
    rng = np.random.default_rng(seed)
    weights = {
        "first.weight": _weight(rng, channels, 4, 3, 3),
        "first.bias": _weight(rng, channels),
        "second.weight": _weight(rng, channels, channels, 3, 3),
        "second.bias": _weight(rng, channels),
    }
    return _model(nodes, weights, inputs={"image": [1, 4, side, side]}, outputs={"features": [1, channels, side, side]})


def perceptron(*, seed: int = 0, batch: int | str = 4, features: int = 32, hidden: int = 64) -> onnx.ModelProto:
    """MatMul, Add, Relu, MatMul: input ``x`` (batch, features), output ``y`` (batch, 8)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m1"], name="matmul1"),
        helper.make_node("Add", ["m1", "b1"], ["a1"], name="add1"),
        helper.make_node("Relu", ["a1"], ["h"], name="relu1"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], name="matmul2"),
    ]
    rng = np.random.default_rng(seed)
    weights = {
        "w1": _weight(rng, features, hidden, fan_in=features),
        "b1": _weight(rng, hidden),
        "w2": _weight(rng, hidden, 8, fan_in=hidden),
    }
    return _model(nodes, weights, inputs={"x": [batch, features]}, outputs={"y": [batch, 8]})


def dynamic_batch(*, seed: int = 0) -> onnx.ModelProto:
    """The perceptron with a named first dimension, ``batch``."""
    return perceptron(seed=seed, batch="batch")


def dynamic_sides() -> onnx.ModelProto:
    """A convolution whose height and width are named: nothing can guess them."""
    nodes = [helper.make_node("Conv", ["image", "weight"], ["y"], pads=[1, 1, 1, 1], name="conv")]
    weights = {"weight": _weight(np.random.default_rng(0), 8, 3, 3, 3)}
    return _model(
        nodes,
        weights,
        inputs={"image": ["batch", 3, "height", "width"]},
        outputs={"y": ["batch", 8, "height", "width"]},
    )


def unsupported() -> onnx.ModelProto:
    """LSTM (once) and Celu (twice), which TVM cannot import, next to a Relu, which it can."""
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="relu"),
        helper.make_node("LSTM", ["positive", "w", "r"], ["sequence"], hidden_size=4, name="lstm"),
        helper.make_node("Celu", ["sequence"], ["celu1"], name="celu1"),
        helper.make_node("Celu", ["celu1"], ["y"], name="celu2"),
    ]
    rng = np.random.default_rng(0)
    weights = {"w": _weight(rng, 1, 16, 3), "r": _weight(rng, 1, 16, 4)}
    return _model(nodes, weights, inputs={"x": [5, 1, 3]}, outputs={"y": [5, 1, 1, 4]})


def write(model: onnx.ModelProto, path: Path) -> Path:
    """Save a model as one file and give its path back."""
    onnx.save(model, path)
    return path


def write_external_data(folder: Path) -> Path:
    """The convolutional model with its weights in ``weights.bin`` next to ``external.onnx``."""
    path = folder / "external.onnx"
    onnx.save(convolutional(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def write_truncated(folder: Path) -> Path:
    """The first two thirds of a valid file."""
    whole = convolutional().SerializeToString()
    path = folder / "truncated.onnx"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


def write_unknown_opset(folder: Path) -> Path:
    """A model of an operator set that does not exist yet."""
    model = convolutional()
    model.opset_import[0].version = 999
    return write(model, folder / "unknown_opset.onnx")


def _weight(rng: np.random.Generator, *shape: int, fan_in: int | None = None) -> np.ndarray:
    """He-scaled normal values, so that activations keep their size; ``fan_in`` defaults to all axes but the first."""
    inputs = fan_in or int(np.prod(shape[1:])) or 1
    return np.asarray(rng.standard_normal(shape) * np.sqrt(2.0 / inputs), dtype=np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
