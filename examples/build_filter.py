"""Write a two-stage image filter with seeded random weights as ONNX: 3×3 to a few channels, 3×3 back to colours.

The tensor between the stages is far larger than the image: 133 MB for a frame of 1920×1080 and 16 channels::

    .venv/bin/python examples/build_filter.py --rows 1080 --columns 1920 --out filter.onnx
    .venv/bin/tessera tune filter.onnx --target host --trials 64 --memory-limit 64MiB
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
from network_builder import NetworkBuilder


def two_stages(*, rows: int = 1080, columns: int = 1920, channels: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Input ``frame`` and output ``filtered`` (1, 3, rows, columns), float32."""
    builder = NetworkBuilder(seed=seed)
    wide = builder.convolution("first", "frame", inputs=3, outputs=channels, kernel=3)
    wide = builder.node("Relu", [wide], "first.relu")
    builder.convolution("filtered", wide, inputs=channels, outputs=3, kernel=3, gain=1.0)
    shape = [1, 3, rows, columns]
    return builder.model("filter", inputs={"frame": shape}, outputs={"filtered": shape})


def main() -> None:
    options = argparse.ArgumentParser(description="Write a two-stage image filter with random weights as ONNX.")
    options.add_argument("--rows", type=int, default=1080)
    options.add_argument("--columns", type=int, default=1920)
    options.add_argument("--channels", type=int, default=16, help="channels between the two stages")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("filter.onnx"))
    chosen = options.parse_args()
    model = two_stages(rows=chosen.rows, columns=chosen.columns, channels=chosen.channels, seed=chosen.seed)
    onnx.save(model, chosen.out)
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
