"""Write a network with MobileNetV2's shape (Sandler et al., 2018, table 2) and seeded random weights as ONNX.

For trying the tuner on a real architecture without downloading weights::

    .venv/bin/python examples/build_mobilenet_v2.py --width 0.35 --resolution 144 --out mobilenet_v2.onnx
    .venv/bin/tessera tune mobilenet_v2.onnx --target host --trials 64
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from network_builder import NetworkBuilder

# Expansion, output channels, repeats, stride of the first repeat.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


def by_paper(channels: int, width: float) -> int:
    """Channels times width, rounded to a multiple of 8 and never more than 10 % down (the paper's own rule)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


class MobileNetBuilder(NetworkBuilder):
    """``clip`` writes ReLU6 as Clip(0, 6), otherwise activations are plain Relu."""

    def __init__(self, *, seed: int, clip: bool) -> None:
        super().__init__(seed=seed)
        self._clip = clip
        if clip:
            self.constant("zero", np.float32(0))
            self.constant("six", np.float32(6))

    def activation(self, source: str) -> str:
        if self._clip:
            return self.node("Clip", [source, "zero", "six"], f"{source}.relu6")
        return self.node("Relu", [source], f"{source}.relu")

    def bottleneck(self, name: str, source: str, *, inputs: int, outputs: int, expansion: int, stride: int) -> str:
        """Expand 1x1, depthwise 3x3, project 1x1 without activation; added to its input where the shapes agree."""
        hidden = inputs * expansion
        flow = source
        if expansion != 1:
            flow = self.activation(self.convolution(f"{name}.expand", flow, inputs=inputs, outputs=hidden, kernel=1))
        flow = self.convolution(
            f"{name}.depthwise", flow, inputs=hidden, outputs=hidden, kernel=3, stride=stride, groups=hidden
        )
        flow = self.activation(flow)
        flow = self.convolution(f"{name}.project", flow, inputs=hidden, outputs=outputs, kernel=1, gain=1.0)
        if stride == 1 and inputs == outputs:
            flow = self.node("Add", [flow, source], f"{name}.sum")
        return flow


def mobilenet_v2(
    *,
    width: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    seed: int = 0,
    clip: bool = True,
    truncate: bool = False,
) -> onnx.ModelProto:
    """Input ``image`` (1, 3, resolution, resolution), output ``logits`` (1, classes), float32.

    ``truncate`` rounds channels down to whole numbers, as the literature on microcontrollers does.
    """
    builder = MobileNetBuilder(seed=seed, clip=clip)

    def scaled(channels: int, width: float) -> int:
        return int(channels * width) if truncate else by_paper(channels, width)

    channels = scaled(STEM_CHANNELS, width)
    flow = builder.activation(builder.convolution("stem", "image", inputs=3, outputs=channels, kernel=3, stride=2))
    for stage, (expansion, base, repeats, first_stride) in enumerate(BLOCKS):
        outputs = scaled(base, width)
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            name = f"block{stage}.{repeat}"
            flow = builder.bottleneck(name, flow, inputs=channels, outputs=outputs, expansion=expansion, stride=stride)
            channels = outputs
    last = scaled(LAST_CHANNELS, max(1.0, width))
    flow = builder.activation(builder.convolution("last", flow, inputs=channels, outputs=last, kernel=1))
    builder.classifier(flow, inputs=last, classes=classes)
    inputs = {"image": [1, 3, resolution, resolution]}
    return builder.model("mobilenet_v2", inputs=inputs, outputs={"logits": [1, classes]})


def main() -> None:
    options = argparse.ArgumentParser(description="Write a MobileNetV2-shaped network with random weights as ONNX.")
    options.add_argument("--width", type=float, default=1.0, help="channel multiplier, 0.35 to 1.4")
    options.add_argument("--resolution", type=int, default=224, help="height and width of the input")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--relu", action="store_true", help="plain Relu instead of Clip(0, 6)")
    options.add_argument("--truncate", action="store_true", help="channels rounded down, not to multiples of 8")
    options.add_argument("--out", type=Path, default=Path("mobilenet_v2.onnx"))
    chosen = options.parse_args()
    model = mobilenet_v2(
        width=chosen.width,
        resolution=chosen.resolution,
        classes=chosen.classes,
        seed=chosen.seed,
        clip=not chosen.relu,
        truncate=chosen.truncate,
    )
    onnx.save(model, chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
