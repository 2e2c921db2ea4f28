"""The demo's arithmetic: samples from the pictures, and how many digits are named right before and after tuning.

ONNX Runtime judges the model as it was uploaded, the bundle's module is loaded as a user would; both in child
processes of the tuner.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tuner.network_process import NetworkProcess


def write_samples(images: Path, samples: Path, *, input_name: str, count: int) -> None:
    """The first pictures as the samples of a model with batch 1: (count, 1, 1, 32, 32)."""
    with np.load(images, allow_pickle=False) as stored:
        np.savez(samples, **{input_name: stored["images"][:count, np.newaxis]})


def accuracies(bundle: Path, model: Path, images: Path) -> tuple[float, float]:
    """Shares of pictures that are named right before (ONNX Runtime) and after (the unpacked bundle's module)."""
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    with np.load(images, allow_pickle=False) as stored:
        pictures, labels = stored["images"], stored["labels"]
    before = _accuracy(model, "onnxruntime", manifest, pictures, labels)
    return before, _accuracy(bundle / "module.so", "tvm", manifest, pictures, labels)


def _accuracy(
    network: Path,
    kind: Literal["tvm", "onnxruntime"],
    manifest: dict[str, Any],
    pictures: np.ndarray,
    labels: np.ndarray,
) -> float:
    (input_name,), (output_name,) = ([spec["name"] for spec in manifest[side]] for side in ("inputs", "outputs"))
    samples = [{input_name: picture[np.newaxis]} for picture in pictures]
    with NetworkProcess(network, kind=kind, threads=int(manifest["threads"])) as process:
        outputs = process.run(samples, [input_name], [output_name])
    named = np.array([int(np.argmax(output[output_name])) for output in outputs])
    return float(np.mean(named == labels))
