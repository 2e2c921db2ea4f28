"""Small ONNX networks with seeded random weights, one per structure that the graph passes must survive."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tvm.ir import IRModule
from tvm.relax.frontend.onnx import from_onnx

Array = npt.NDArray[np.float32]


class Network:
    """Collects nodes and weights; every method returns the name of a new tensor."""

    def __init__(self, *, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, npt.NDArray[Any]] = {}

    def weight(self, *shape: int, scale: float = 0.2, offset: float = 0.0) -> str:
        return self.value((self._random.standard_normal(shape) * scale + offset).astype(np.float32))

    def value(self, values: npt.NDArray[Any]) -> str:
        name = f"w{len(self._weights)}"
        self._weights[name] = values
        return name

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self._nodes)}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0]

    def conv(self, data: str, *, inputs: int, outputs: int, kernel: int = 3, groups: int = 1, **attributes: Any) -> str:
        pads = attributes.pop("pads", [kernel // 2] * 4)
        return self.node(
            "Conv",
            data,
            self.weight(outputs, inputs // groups, kernel, kernel),
            self.weight(outputs),
            group=groups,
            pads=pads,
            **attributes,
        )

    def batch_norm(self, data: str, channels: int) -> str:
        positive = np.abs(self._random.standard_normal(channels)).astype(np.float32) + 0.5
        return self.node(
            "BatchNormalization",
            data,
            self.weight(channels, offset=1.0),
            self.weight(channels),
            self.weight(channels),
            self.value(positive),
        )

    def model(self, *outputs: str, shape: tuple[int, ...] = (1, 8, 14, 14), opset: int = 13) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in self._weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def classifier() -> onnx.ModelProto:
    """conv, batch norm, relu, pool, conv, flatten, gemm, softmax."""
    n = Network(seed=1)
    t = n.node("Relu", n.batch_norm(n.conv("x", inputs=8, outputs=16), 16))
    t = n.node("MaxPool", t, kernel_shape=[2, 2], strides=[2, 2])
    t = n.node("Relu", n.conv(t, inputs=16, outputs=32))
    t = n.node("Gemm", n.node("Flatten", t), n.weight(10, 32 * 49, scale=0.01), n.weight(10), transB=1)
    return n.model(n.node("Softmax", t, axis=-1))


def residual() -> onnx.ModelProto:
    """Two residual blocks, one with Add and one with Sum, then a global average pool and a fully connected layer."""
    n = Network(seed=2)
    t = n.node("Relu", n.batch_norm(n.conv("x", inputs=8, outputs=16), 16))
    for operator in ("Add", "Sum"):
        inner = n.node("Relu", n.batch_norm(n.conv(t, inputs=16, outputs=16), 16))
        inner = n.batch_norm(n.conv(inner, inputs=16, outputs=16), 16)
        t = n.node("Relu", n.node(operator, inner, t))
    t = n.node("Flatten", n.node("GlobalAveragePool", t))
    return n.model(n.node("MatMul", t, n.weight(16, 24)))


def mobile() -> onnx.ModelProto:
    """Pointwise, depthwise with stride, pointwise, with ReLU6 as Clip and a squeeze-and-excite branch."""
    n = Network(seed=3)
    low, high = n.value(np.float32(0)), n.value(np.float32(6))
    t = n.node("Clip", n.batch_norm(n.conv("x", inputs=8, outputs=24, kernel=1), 24), low, high)
    t = n.node("Clip", n.conv(t, inputs=24, outputs=24, groups=24, strides=[2, 2]), low, high)
    squeezed = n.conv(n.node("GlobalAveragePool", t), inputs=24, outputs=24, kernel=1)
    t = n.node("Mul", t, n.node("Sigmoid", squeezed))
    return n.model(n.conv(t, inputs=24, outputs=16, kernel=1))


def shuffled() -> onnx.ModelProto:
    """Grouped 1x1 convolutions around a channel shuffle, a strided average pool, and a concatenation."""
    n = Network(seed=4)
    t = n.node("Relu", n.conv("x", inputs=8, outputs=16, kernel=1, groups=4))
    t = n.node("Reshape", t, n.value(np.array([1, 4, 4, 14, 14], dtype=np.int64)))
    t = n.node("Transpose", t, perm=[0, 2, 1, 3, 4])
    t = n.node("Reshape", t, n.value(np.array([1, 16, 14, 14], dtype=np.int64)))
    t = n.conv(t, inputs=16, outputs=16, groups=16, strides=[2, 2])
    t = n.conv(t, inputs=16, outputs=8, kernel=1, groups=4)
    pooled = n.node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return n.model(n.node("Relu", n.node("Concat", t, pooled, axis=1)))


def normalized() -> onnx.ModelProto:
    """Local response normalization between convolutions, explicit padding, leaky and parametric ReLU."""
    n = Network(seed=5)
    t = n.node("LRN", n.node("Relu", n.conv("x", inputs=8, outputs=16)), size=5, alpha=0.1, beta=0.75, bias=1.0)
    t = n.node("Pad", t, n.value(np.array([0, 0, 1, 2, 0, 0, 2, 1], dtype=np.int64)))
    t = n.node("LeakyRelu", n.conv(t, inputs=16, outputs=16, pads=[0, 0, 0, 0]), alpha=0.1)
    return n.model(n.node("PRelu", n.conv(t, inputs=16, outputs=8, kernel=1), n.weight(8, 1, 1)))


def dense() -> onnx.ModelProto:
    """DenseNet's block: batch norm and relu before the convolution, and growing concatenations."""
    n = Network(seed=6)
    t = n.conv("x", inputs=8, outputs=16)
    for channels in (16, 24):
        inner = n.node("Relu", n.batch_norm(t, channels))
        inner = n.node("Relu", n.batch_norm(n.conv(inner, inputs=channels, outputs=16, kernel=1), 16))
        t = n.node("Concat", t, n.conv(inner, inputs=16, outputs=8), axis=1)
    return n.model(t)


def mixed() -> onnx.ModelProto:
    """What forces transposes in the middle: a transpose of its own, a reduction over channels, and two outputs."""
    n = Network(seed=7)
    t = n.node("Relu", n.conv("x", inputs=8, outputs=16))
    moved = n.node("Transpose", t, perm=[0, 2, 1, 3])
    norm = n.node("ReduceMean", t, axes=[1], keepdims=0)
    back = n.node("Transpose", moved, perm=[0, 2, 1, 3])
    scaled = n.node("Mul", back, n.weight(16, 1, 1))
    return n.model(n.node("Sub", n.conv(scaled, inputs=16, outputs=16), n.weight(16, 14, 14)), norm)


def perceptron() -> onnx.ModelProto:
    """No convolution: two fully connected layers with a batch of one, one of them transposed."""
    n = Network(seed=8)
    t = n.node("Relu", n.node("Gemm", "x", n.weight(96, 64), n.weight(96), transB=1))
    return n.model(n.node("Add", n.node("MatMul", t, n.weight(96, 40)), n.weight(40)), shape=(1, 64))


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    function.__name__: function
    for function in (classifier, residual, mobile, shuffled, normalized, dense, mixed, perceptron)
}


def imported(model: onnx.ModelProto) -> IRModule:
    return from_onnx(model, keep_params_in_input=False)


def example_input(model: onnx.ModelProto) -> Array:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(99).standard_normal(shape).astype(np.float32)


def reference(model: onnx.ModelProto, values: Array) -> list[Array]:
    """ONNX Runtime's outputs, without its graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": values}))


def light_model(name: str) -> IRModule:
    """One of the ``onnx`` package's light models: a real architecture with constant weights, imported."""
    folder = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data", "light")
    model = onnx.load(os.path.join(folder, f"light_{name}.onnx"))
    weights = {tensor.name for tensor in model.graph.initializer}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in weights
    }
    return from_onnx(model, shapes, keep_params_in_input=False)
