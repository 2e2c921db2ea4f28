"""Write a network with MobileNetV2's shape (Sandler et al., 2018, table 2) and seeded random weights as ONNX.

For trying the tuner on a real architecture without downloading weights::

    .venv/bin/python examples/build_mobilenet_v2.py --width 0.35 --resolution 144 --out mobilenet_v2.onnx
    .venv/bin/tessera tune mobilenet_v2.onnx --target host --trials 64

Batch norm is folded, as in any network exported for inference: each convolution has a bias. Weights are He-scaled, so
that activations neither vanish nor saturate at the clip and a numerical comparison means something.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Expansion, output channels, repeats, stride of the first repeat.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
OPSET = 18
IR_VERSION = 10


def scaled(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8 and never more than 10 % down (the paper's own rule)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


class NetworkBuilder:
    """Appends layers to one ONNX graph. ``clip`` writes ReLU6 as Clip(0, 6), otherwise activations are plain Relu."""

    def __init__(self, *, seed: int, clip: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.clip = clip
        self._rng = np.random.default_rng(seed)
        if clip:
            self._constant("zero", np.float32(0))
            self._constant("six", np.float32(6))

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
        activation: bool = True,
    ) -> str:
        """Convolution with bias and "same" padding, then the activation; gives the output's name."""
        fan_in = inputs // groups * kernel * kernel
        gain = 2.0 if activation else 1.0
        shape = (outputs, inputs // groups, kernel, kernel)
        weight = self._constant(f"{name}.weight", self._normal(shape, np.sqrt(gain / fan_in)))
        bias = self._constant(f"{name}.bias", self._normal((outputs,), 0.1))
        pad = kernel // 2
        self._node(
            "Conv",
            [source, weight, bias],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad, pad, pad, pad],
            group=groups,
        )
        return self._activation(name) if activation else name

    def bottleneck(self, name: str, source: str, *, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        """Expand 1x1, depthwise 3x3, project 1x1 without activation; added to its input where the shapes agree."""
        hidden = inputs * expansion
        flow = source
        if expansion != 1:
            flow = self.convolution(f"{name}.expand", flow, inputs=inputs, outputs=hidden, kernel=1)
        flow = self.convolution(
            f"{name}.depthwise", flow, inputs=hidden, outputs=hidden, kernel=3, stride=stride, groups=hidden
        )
        flow = self.convolution(f"{name}.project", flow, inputs=hidden, outputs=outputs, kernel=1, activation=False)
        if stride == 1 and inputs == outputs:
            flow = self._node("Add", [flow, source], f"{name}.sum")
        return flow

    def classifier(self, source: str, *, inputs: int, classes: int) -> str:
        """Global average pooling and one linear layer; its output is named ``logits``."""
        pooled = self._node("GlobalAveragePool", [source], "pool")
        flat = self._node("Flatten", [pooled], "flat")
        weight = self._constant("classifier.weight", self._normal((classes, inputs), np.sqrt(1.0 / inputs)))
        bias = self._constant("classifier.bias", self._normal((classes,), 0.1))
        return self._node("Gemm", [flat, weight, bias], "logits", transB=1)

    def _activation(self, source: str) -> str:
        if self.clip:
            return self._node("Clip", [source, "zero", "six"], f"{source}.relu6")
        return self._node("Relu", [source], f"{source}.relu")

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constant(self, name: str, value: np.ndarray | np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _normal(self, shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return (self._rng.standard_normal(shape) * deviation).astype(np.float32)


def mobilenet_v2(
    *, width: float = 1.0, resolution: int = 224, classes: int = 1000, seed: int = 0, clip: bool = True
) -> onnx.ModelProto:
    """Input ``image`` (1, 3, resolution, resolution), output ``logits`` (1, classes), float32."""
    builder = NetworkBuilder(seed=seed, clip=clip)
    channels = scaled(STEM_CHANNELS, width)
    flow = builder.convolution("stem", "image", inputs=3, outputs=channels, kernel=3, stride=2)
    for stage, (expansion, base, repeats, first_stride) in enumerate(BLOCKS):
        outputs = scaled(base, width)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            name = f"block{stage}.{repeat}"
            flow = builder.bottleneck(name, flow, inputs=channels, outputs=outputs, expansion=expansion, stride=stride)
            channels = outputs
    last = scaled(LAST_CHANNELS, max(1.0, width))
    flow = builder.convolution("last", flow, inputs=channels, outputs=last, kernel=1)
    builder.classifier(flow, inputs=last, classes=classes)
    graph = helper.make_graph(
        builder.nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, resolution, resolution])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        builder.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    options = argparse.ArgumentParser(description="Write a MobileNetV2-shaped network with random weights as ONNX.")
    options.add_argument("--width", type=float, default=1.0, help="channel multiplier, 0.35 to 1.4")
    options.add_argument("--resolution", type=int, default=224, help="height and width of the input")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--relu", action="store_true", help="plain Relu instead of Clip(0, 6)")
    options.add_argument("--out", type=Path, default=Path("mobilenet_v2.onnx"))
    chosen = options.parse_args()
    model = mobilenet_v2(
        width=chosen.width,
        resolution=chosen.resolution,
        classes=chosen.classes,
        seed=chosen.seed,
        clip=not chosen.relu,
    )
    onnx.save(model, chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
