"""``python -m benchmarks.openvino_contender``: OpenVINO under the protocol of `tuner.contender`.

Installed for the benchmark only (``pip install openvino``). It is timed at its best: the latency hint, one stream, all
the threads given, inputs and outputs shared instead of copied. And in fp32: on a machine with AMX or bf16 units its
default is bf16, which would be another computation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from tuner.contender import Network, serve

PROGRAM = "benchmarks.openvino_contender"


def is_installed() -> bool:
    return find_spec("openvino") is not None


class _OpenVino(Network):
    def __init__(self, path: str, threads: int) -> None:
        openvino: Any = import_module("openvino")  # not a dependency of ours
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        core = openvino.Core()
        self._request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return dict(enumerate(arrays))

    def launch(self, prepared: Any) -> Any:
        return self._request.infer(prepared, share_inputs=True, share_outputs=True)

    def fetch(self, returned: Any) -> list[np.ndarray]:
        return [np.array(output) for output in returned.values()]


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}")
    parser.add_argument("path")
    parser.add_argument("--kind", choices=["onnxruntime"], required=True, help="what the file is: ONNX")
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    return serve(lambda: _OpenVino(given.path, given.threads))


if __name__ == "__main__":
    sys.exit(main())
