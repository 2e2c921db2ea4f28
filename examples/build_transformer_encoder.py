"""Write a transformer encoder (Vaswani et al., 2017) with seeded random weights as ONNX.

For trying the tuner on matrix products, softmax and layer normalization without downloading weights::

    .venv/bin/python examples/build_transformer_encoder.py --out transformer_encoder.onnx
    .venv/bin/tessera tune transformer_encoder.onnx --target host --trials 256

Layers as in BERT: self-attention and a feed-forward network with GELU, each added to its input and then normalized.
The embedding is left out: a table look-up is nothing to tune.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from network_builder import NetworkBuilder


class EncoderBuilder(NetworkBuilder):
    """Layers on values of shape (1, sequence, width)."""

    def __init__(self, *, seed: int, sequence: int, width: int, heads: int, relu: bool) -> None:
        super().__init__(seed=seed)
        if width % heads:
            raise ValueError(f"{heads} heads cannot share a width of {width} evenly")
        self._width = width
        self._relu = relu
        self._split = self.constant("shape.split", np.array([1, sequence, heads, width // heads], np.int64))
        self._joined = self.constant("shape.joined", np.array([1, sequence, width], np.int64))
        self._scale = self.constant("attention.scale", np.float32((width // heads) ** -0.5))
        if not relu:
            self._sqrt2 = self.constant("gelu.sqrt2", np.float32(2**0.5))
            self._one = self.constant("gelu.one", np.float32(1))
            self._half = self.constant("gelu.half", np.float32(0.5))

    def layer(self, name: str, source: str, *, hidden: int) -> str:
        attended = self._normalized(f"{name}.attention", source, self._attention(f"{name}.attention", source))
        flow = self.linear(f"{name}.expand", attended, inputs=self._width, outputs=hidden)
        flow = self._activation(flow)
        flow = self.linear(f"{name}.project", flow, inputs=hidden, outputs=self._width, gain=2.0)
        return self._normalized(f"{name}.feedforward", attended, flow)

    def _attention(self, name: str, source: str) -> str:
        """Softmax(Q Kᵀ / √d) V of every head, joined and projected."""
        query = self._heads(f"{name}.query", source, order=[0, 2, 1, 3])
        key = self._heads(f"{name}.key", source, order=[0, 2, 3, 1])
        value = self._heads(f"{name}.value", source, order=[0, 2, 1, 3])
        scores = self.node("MatMul", [query, key], f"{name}.products")
        scores = self.node("Mul", [scores, self._scale], f"{name}.scores")
        weights = self.node("Softmax", [scores], f"{name}.weights", axis=-1)
        mixed = self.node("MatMul", [weights, value], f"{name}.mixed")
        mixed = self.node("Transpose", [mixed], f"{name}.mixed.joined", perm=[0, 2, 1, 3])
        mixed = self.node("Reshape", [mixed, self._joined], f"{name}.mixed.flat")
        return self.linear(f"{name}.output", mixed, inputs=self._width, outputs=self._width)

    def _heads(self, name: str, source: str, *, order: list[int]) -> str:
        projected = self.linear(name, source, inputs=self._width, outputs=self._width)
        split = self.node("Reshape", [projected, self._split], f"{name}.split")
        return self.node("Transpose", [split], f"{name}.heads", perm=order)

    def _activation(self, source: str) -> str:
        """ReLU, or GELU as it was exported before it became an operator: x · (1 + erf(x / √2)) · 0.5."""
        if self._relu:
            return self.node("Relu", [source], f"{source}.relu")
        erf = self.node("Erf", [self.node("Div", [source, self._sqrt2], f"{source}.scaled")], f"{source}.erf")
        gate = self.node("Add", [erf, self._one], f"{source}.gate")
        doubled = self.node("Mul", [source, gate], f"{source}.doubled")
        return self.node("Mul", [doubled, self._half], f"{source}.gelu")

    def _normalized(self, name: str, source: str, branch: str) -> str:
        """The sum of a branch and its input, normalized over the last axis."""
        total = self.node("Add", [source, branch], f"{name}.sum")
        scale = self.constant(f"{name}.norm.scale", np.ones(self._width, np.float32))
        bias = self.normal(f"{name}.norm.bias", (self._width,), 0.1)
        return self.node("LayerNormalization", [total, scale, bias], f"{name}.norm", axis=-1, epsilon=1e-5)


def transformer_encoder(
    *,
    layers: int = 4,
    sequence: int = 128,
    width: int = 256,
    heads: int = 8,
    hidden: int = 1024,
    seed: int = 0,
    relu: bool = False,
) -> onnx.ModelProto:
    """Input ``embeddings`` (1, sequence, width), output ``encoded`` of the same shape, float32."""
    builder = EncoderBuilder(seed=seed, sequence=sequence, width=width, heads=heads, relu=relu)
    flow = "embeddings"
    for index in range(layers):
        flow = builder.layer(f"layer{index}", flow, hidden=hidden)
    builder.node("Identity", [flow], "encoded")
    shape = [1, sequence, width]
    return builder.model("transformer_encoder", inputs={"embeddings": shape}, outputs={"encoded": shape})


def main() -> None:
    options = argparse.ArgumentParser(description="Write a transformer encoder with random weights as ONNX.")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--sequence", type=int, default=128, help="number of tokens")
    options.add_argument("--width", type=int, default=256, help="numbers a token")
    options.add_argument("--heads", type=int, default=8)
    options.add_argument("--hidden", type=int, default=1024, help="width inside the feed-forward networks")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--relu", action="store_true", help="ReLU instead of GELU")
    options.add_argument("--out", type=Path, default=Path("transformer_encoder.onnx"))
    chosen = options.parse_args()
    model = transformer_encoder(
        layers=chosen.layers,
        sequence=chosen.sequence,
        width=chosen.width,
        heads=chosen.heads,
        hidden=chosen.hidden,
        seed=chosen.seed,
        relu=chosen.relu,
    )
    onnx.save(model, chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
