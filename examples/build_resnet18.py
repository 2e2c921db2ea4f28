"""Write a network with ResNet-18's shape (He et al., 2016, table 1) and seeded random weights as ONNX.

For trying the tuner on 3×3 convolutions without downloading weights::

    .venv/bin/python examples/build_resnet18.py --out resnet18.onnx
    .venv/bin/tessera tune resnet18.onnx --target host --trials 256
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
from network_builder import NetworkBuilder

STAGES = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2
# What eight blocks add to their inputs, with no batch norm in between, must not grow a thousandfold.
_BRANCH_GAIN = 0.5


class ResNetBuilder(NetworkBuilder):
    def relu(self, source: str) -> str:
        return self.node("Relu", [source], f"{source}.relu")

    def basic_block(self, name: str, source: str, *, inputs: int, outputs: int, stride: int) -> str:
        """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""
        flow = self.convolution(f"{name}.conv1", source, inputs=inputs, outputs=outputs, kernel=3, stride=stride)
        flow = self.relu(flow)
        flow = self.convolution(f"{name}.conv2", flow, inputs=outputs, outputs=outputs, kernel=3, gain=_BRANCH_GAIN)
        shortcut = source
        if stride != 1 or inputs != outputs:
            shortcut = self.convolution(
                f"{name}.shortcut", source, inputs=inputs, outputs=outputs, kernel=1, stride=stride, gain=1.0
            )
        return self.relu(self.node("Add", [flow, shortcut], f"{name}.sum"))


def resnet18(*, resolution: int = 224, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """Input ``image`` (1, 3, resolution, resolution), output ``logits`` (1, classes), float32."""
    builder = ResNetBuilder(seed=seed)
    channels = STAGES[0]
    flow = builder.relu(builder.convolution("stem", "image", inputs=3, outputs=channels, kernel=7, stride=2))
    flow = builder.node("MaxPool", [flow], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, outputs in enumerate(STAGES):
        for block in range(BLOCKS_PER_STAGE):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage}.{block}"
            flow = builder.basic_block(name, flow, inputs=channels, outputs=outputs, stride=stride)
            channels = outputs
    builder.classifier(flow, inputs=channels, classes=classes)
    inputs = {"image": [1, 3, resolution, resolution]}
    return builder.model("resnet18", inputs=inputs, outputs={"logits": [1, classes]})


def main() -> None:
    options = argparse.ArgumentParser(description="Write a ResNet-18-shaped network with random weights as ONNX.")
    options.add_argument("--resolution", type=int, default=224, help="height and width of the input")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("resnet18.onnx"))
    chosen = options.parse_args()
    model = resnet18(resolution=chosen.resolution, classes=chosen.classes, seed=chosen.seed)
    onnx.save(model, chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
