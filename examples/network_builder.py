"""Networks written layer by layer as ONNX, with seeded random weights: what the build scripts beside it share.

Batch norm is folded, as in any network exported for inference: each convolution has a bias. Weights are He-scaled, so
that activations neither vanish nor explode and a numerical comparison means something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
IR_VERSION = 10


class NetworkBuilder:
    """Appends nodes and weights to one ONNX graph. Every method gives the name of its output."""

    def __init__(self, *, seed: int) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """One node, named like its output."""
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray | np.generic) -> str:
        self._weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def normal(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        """Weights from N(0, deviation²), float32."""
        return self.constant(name, (self._rng.standard_normal(shape) * deviation).astype(np.float32))

    def convolution(
        self,
        name: str,
        source: str,
        *,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        gain: float = 2.0,
    ) -> str:
        """Convolution with bias and "same" padding; ``gain`` is its output's variance ÷ its input's mean square.

        2 is right before a ReLU, which halves the mean square (He et al., 2015).
        """
        fan_in = inputs // groups * kernel * kernel
        weight = self.normal(f"{name}.weight", (outputs, inputs // groups, kernel, kernel), np.sqrt(gain / fan_in))
        bias = self.normal(f"{name}.bias", (outputs,), 0.1)
        pad = kernel // 2
        return self.node(
            "Conv",
            [source, weight, bias],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad, pad, pad, pad],
            group=groups,
        )

    def linear(self, name: str, source: str, *, inputs: int, outputs: int, gain: float = 1.0) -> str:
        """Matrix product with bias over the last axis."""
        weight = self.normal(f"{name}.weight", (inputs, outputs), np.sqrt(gain / inputs))
        bias = self.normal(f"{name}.bias", (outputs,), 0.1)
        return self.node("Add", [self.node("MatMul", [source, weight], f"{name}.product"), bias], name)

    def classifier(self, source: str, *, inputs: int, classes: int) -> str:
        """Global average pooling and one linear layer; its output is named ``logits``."""
        pooled = self.node("GlobalAveragePool", [source], "pool")
        flat = self.node("Flatten", [pooled], "flat")
        weight = self.normal("classifier.weight", (classes, inputs), np.sqrt(1.0 / inputs))
        bias = self.normal("classifier.bias", (classes,), 0.1)
        return self.node("Gemm", [flat, weight, bias], "logits", transB=1)

    def model(self, name: str, *, inputs: Mapping[str, list[int]], outputs: Mapping[str, list[int]]) -> onnx.ModelProto:
        """The checked model; inputs and outputs by name, float32."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape) for value, shape in inputs.items()],
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape) for value, shape in outputs.items()],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model
