"""``python -m tuner.frontend.check MODEL --target NAME``: preflight in a process of its own.

Prints exactly one JSON object on standard output: the report, or ``{"error": {code, message, hint, details}}``
with exit status 1. Whatever native libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tuner.errors import ModelError, TesseraError

_OUT_OF_MEMORY = ModelError(
    "There is not enough memory to import the model.",
    code="model_too_large",
    hint="Tune it on a machine with more memory, or tune a smaller variant.",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tuner.frontend.check", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="host")
    parser.add_argument("--input-shape", action="append", default=[], metavar="NAME=1x3x224x224")
    given = parser.parse_args(arguments)
    answers = _claim_stdout()
    try:
        answer, status = _check(given.model, given.target, given.input_shape), 0
    except TesseraError as error:
        answer, status = {"error": error.as_dict()}, 1
    except MemoryError:
        answer, status = {"error": _OUT_OF_MEMORY.as_dict()}, 1
    with os.fdopen(answers, "w") as stream:
        stream.write(json.dumps(answer) + "\n")
    return status


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``"x=1x3x8x8"`` → ``("x", (1, 3, 8, 8))``; raises `ModelError` (``shape_mismatch``)."""
    name, _, sizes = text.rpartition("=")
    parts = sizes.split("x")
    if not name or not all(part.isdecimal() for part in parts):
        raise ModelError(
            f"{text!r} is not an input shape.",
            code="shape_mismatch",
            hint="Write NAME=SIZExSIZE…, for example --input-shape x=1x3x224x224.",
        )
    return name, tuple(int(part) for part in parts)


def _check(model: Path, target: str, shapes: list[str]) -> dict[str, object]:
    from tuner.targets import TargetSpec, find_target

    spec = TargetSpec.from_dict(json.loads(target)) if target.startswith("{") else find_target(target)
    input_shapes = dict(parse_input_shape(text) for text in shapes)
    from tuner.frontend.preflight import check_model

    return check_model(model, input_shapes, spec).as_dict()


def _claim_stdout() -> int:
    """Keep standard output for the answer; file descriptor 1 becomes standard error, for native code too."""
    sys.stdout.flush()
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    sys.exit(main())
