"""The preflight child: one JSON object on standard output, whatever native code prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import models
from tuner.errors import ModelError
from tuner.frontend.check import parse_input_shape

ROOT = Path(__file__).resolve().parents[2]


def check(*arguments: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "tuner.frontend.check", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1, (done.stdout, done.stderr)
    return done.returncode, json.loads(lines[0])


def test_a_good_model_prints_its_report(dynamic_batch_model: Path) -> None:
    status, report = check(str(dynamic_batch_model), "--target", "host", "--input-shape", "x=3x32")
    assert status == 0
    assert report["inputs"] == [{"name": "x", "shape": [3, 32], "dtype": "float32"}]
    assert report["flops"] == 3 * (2 * 32 * 64 + 64 + 64 + 2 * 64 * 8)


def test_an_unsupported_model_prints_the_error_and_fails(unsupported_model: Path) -> None:
    status, answer = check(str(unsupported_model), "--target", "host")
    assert status == 1
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["code"] == "unsupported_operators"
    assert error["details"] == {"operators": {"Celu": 2, "LSTM": 1}}


def test_an_unknown_target_fails(perceptron_model: Path) -> None:
    status, answer = check(str(perceptron_model), "--target", "toaster")
    assert status == 1
    assert answer["error"]["code"] == "unknown_target"  # type: ignore[index]


def test_missing_dimensions_are_listed(tmp_path: Path) -> None:
    path = models.write(models.dynamic_sides(), tmp_path / "sides.onnx")
    status, answer = check(str(path))
    assert status == 1
    assert answer["error"]["code"] == "missing_dimensions"  # type: ignore[index]
    assert [entry["name"] for entry in answer["error"]["details"]["dimensions"]] == ["height", "width"]  # type: ignore[index]


def test_input_shapes_are_parsed_and_their_names_may_hold_equals_signs() -> None:
    assert parse_input_shape("a=b=1x3x8") == ("a=b", (1, 3, 8))


@pytest.mark.parametrize("text", ["x", "x=", "=1x3", "x=1xa", "x=1,3", "x=-1x3"])
def test_other_text_is_no_input_shape(text: str) -> None:
    with pytest.raises(ModelError) as raised:
        parse_input_shape(text)
    assert raised.value.code == "shape_mismatch"
