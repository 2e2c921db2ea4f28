"""The demo's arithmetic, in a child process: ``python -m service.cli.digits samples|accuracy …``, one JSON line.

ONNX Runtime judges the model before tuning, the bundle's own run.py loads the module after it.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def write_samples(images: Path, samples: Path, *, input_name: str, count: int) -> None:
    """The first pictures as the samples of a model with batch 1: (count, 1, 1, 32, 32)."""
    with np.load(images, allow_pickle=False) as stored:
        np.savez(samples, **{input_name: stored["images"][:count, np.newaxis]})


def accuracies(bundle: Path, model: Path, images: Path) -> dict[str, float]:
    """Shares of pictures that are named right, before (ONNX Runtime) and after (the bundle's module)."""
    with np.load(images, allow_pickle=False) as stored:
        pictures, labels = stored["images"], stored["labels"]
    return {
        "accuracy_before": _accuracy(_reference(model), pictures, labels),
        "accuracy_after": _accuracy(_tuned(bundle), pictures, labels),
    }


def _accuracy(classify: Callable[[np.ndarray], np.ndarray], pictures: np.ndarray, labels: np.ndarray) -> float:
    named = [int(np.argmax(classify(picture[np.newaxis]))) for picture in pictures]
    return float(np.mean(np.asarray(named) == labels))


def _reference(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda picture: np.asarray(session.run(None, {name: picture})[0])


def _tuned(bundle: Path) -> Callable[[np.ndarray], np.ndarray]:
    runner: dict[str, Any] = runpy.run_path(str(bundle / "run.py"), run_name="bundle")
    network = runner["Network"](bundle / "module.so")
    name = runner["MANIFEST"]["inputs"][0]["name"]
    return lambda picture: np.asarray(next(iter(network(**{name: picture}).values())))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["samples", images, samples, input_name, count]:
            write_samples(Path(images), Path(samples), input_name=input_name, count=int(count))
        case ["accuracy", bundle, model, images]:
            print(json.dumps(accuracies(Path(bundle), Path(model), Path(images))))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
