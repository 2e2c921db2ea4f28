"""Write a small U-Net (Ronneberger et al., 2015) with seeded random weights as ONNX.

Two levels down and up, two 3×3 convolutions a level, skip connections by concatenation, upsampling by transposed
convolutions::

    .venv/bin/python examples/build_unet.py --resolution 256 --channels 16 --out unet.onnx
    .venv/bin/tessera tune unet.onnx --target host --trials 64
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from network_builder import NetworkBuilder


class UnetBuilder(NetworkBuilder):
    def level(self, name: str, source: str, *, inputs: int, outputs: int) -> str:
        """Two 3×3 convolutions, each with its ReLU."""
        flow, channels = source, inputs
        for number in (1, 2):
            flow = self.convolution(f"{name}.conv{number}", flow, inputs=channels, outputs=outputs, kernel=3)
            flow, channels = self.node("Relu", [flow], f"{name}.relu{number}"), outputs
        return flow

    def upsampled(self, name: str, source: str, *, inputs: int, outputs: int) -> str:
        """Twice the rows and columns, by a transposed convolution whose windows do not overlap."""
        weight = self.normal(f"{name}.weight", (inputs, outputs, 2, 2), float(np.sqrt(1.0 / inputs)))
        bias = self.normal(f"{name}.bias", (outputs,), 0.1)
        return self.node("ConvTranspose", [source, weight, bias], name, kernel_shape=[2, 2], strides=[2, 2])


def unet(*, resolution: int = 256, channels: int = 16, classes: int = 2, seed: int = 0) -> onnx.ModelProto:
    """Input ``image`` (1, 3, resolution, resolution), output ``mask`` (1, classes, resolution, resolution), float32;
    the resolution is a multiple of 4."""
    builder = UnetBuilder(seed=seed)
    first = builder.level("down1", "image", inputs=3, outputs=channels)
    pooled = builder.node("MaxPool", [first], "pool1", kernel_shape=[2, 2], strides=[2, 2])
    second = builder.level("down2", pooled, inputs=channels, outputs=2 * channels)
    pooled = builder.node("MaxPool", [second], "pool2", kernel_shape=[2, 2], strides=[2, 2])
    flow = builder.level("bottom", pooled, inputs=2 * channels, outputs=4 * channels)
    for name, skip, outputs in (("up2", second, 2 * channels), ("up1", first, channels)):
        flow = builder.upsampled(f"{name}.upsampled", flow, inputs=2 * outputs, outputs=outputs)
        joined = builder.node("Concat", [skip, flow], f"{name}.joined", axis=1)
        flow = builder.level(name, joined, inputs=2 * outputs, outputs=outputs)
    builder.convolution("mask", flow, inputs=channels, outputs=classes, kernel=1, gain=1.0)
    shape = [resolution, resolution]
    return builder.model("unet", inputs={"image": [1, 3, *shape]}, outputs={"mask": [1, classes, *shape]})


def main() -> None:
    options = argparse.ArgumentParser(description="Write a small U-Net with random weights as ONNX.")
    options.add_argument("--resolution", type=int, default=256, help="height and width of the input, a multiple of 4")
    options.add_argument("--channels", type=int, default=16, help="channels of the first level")
    options.add_argument("--classes", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("unet.onnx"))
    chosen = options.parse_args()
    model = unet(resolution=chosen.resolution, channels=chosen.channels, classes=chosen.classes, seed=chosen.seed)
    onnx.save(model, chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
