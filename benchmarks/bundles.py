"""Bundles taken apart, so that their modules can be timed against others on the inputs that they were verified with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.bundle import read_manifest, unpack_bundle
from tuner.frontend.tensors import TensorSpec
from tuner.network_process import Sample


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A bundle's module, its first sample, and ONNX Runtime's outputs for it (``expected``)."""

    module: Path
    inputs: list[TensorSpec]
    sample: Sample
    expected: Sample


def unpack(bundle: Path, folder: Path) -> Unpacked:
    """Unpack a bundle into a folder, which is made."""
    folder.mkdir(parents=True)
    unpack_bundle(bundle, folder)
    manifest = read_manifest(bundle)
    inputs = [
        TensorSpec(name=spec["name"], shape=tuple(spec["shape"]), dtype=spec["dtype"]) for spec in manifest["inputs"]
    ]
    with np.load(folder / "samples.npz", allow_pickle=False) as stored:
        sample = {spec.name: stored[f"input.{spec.name}"][0] for spec in inputs}
        expected = {spec["name"]: stored[f"output.{spec['name']}"][0] for spec in manifest["outputs"]}
    return Unpacked(module=folder / "module.so", inputs=inputs, sample=sample, expected=expected)
