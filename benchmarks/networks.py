"""The networks of the benchmarks as ONNX files: architectures of the ``onnx`` package, and those of our examples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "resnet18": ("build_resnet18.py",),
    "mobilenet_v2": ("build_mobilenet_v2.py",),
    "transformer_encoder": ("build_transformer_encoder.py",),
    "mobilenet_v2_0.35_144": ("build_mobilenet_v2.py", "--width", "0.35", "--resolution", "144", "--truncate"),
    "unet_256": ("build_unet.py", "--resolution", "256"),
    "filter_1080p": ("build_filter.py", "--rows", "1080", "--columns", "1920"),
}
LIGHT = ("squeezenet", "shufflenet", "resnet50", "inception_v1", "densenet121")
NETWORKS = (*LIGHT, "resnet18", "mobilenet_v2", "transformer_encoder")
"""Those that are compared with other engines."""
MEMORY_NETWORKS = ("mobilenet_v2", "mobilenet_v2_0.35_144", "resnet18", "squeezenet", "unet_256", "filter_1080p")
"""Those of which memory is compared with and without sliding windows."""


def light_model(name: str) -> Path:
    """The file of a ``light`` model: a real architecture with constant weights."""
    import onnx

    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"


def write_network(name: str, folder: Path) -> Path:
    """One of `NETWORKS` or `MEMORY_NETWORKS` as ``{name}.onnx`` in the folder, with seeded random weights.

    The light models get random weights too: their constants make every channel alike, so that a wrong network looks
    right, and activations may shrink to denormal numbers, which are slow on one engine and flushed by another.
    """
    path = folder / f"{name}.onnx"
    if name in SCRIPTS:
        script, *options = SCRIPTS[name]
        command = [sys.executable, str(ROOT / "examples" / script), *options, "--out", str(path)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return path
    import onnx

    from benchmarks.random_weights import randomize_weights

    onnx.save(randomize_weights(onnx.load(light_model(name)), seed=1), path)
    return path


def chosen_networks(text: str, known: Sequence[str] = NETWORKS) -> list[str]:
    """Names from a comma-separated list; ends the program at one that does not exist."""
    names = text.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"Unknown networks {', '.join(unknown)}; known: {', '.join(known)}")
    return names
