"""The models that other tests rely on are what they say they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests import models


@pytest.mark.parametrize(
    ("model", "feed"),
    [
        (models.convolutional(), {"image": (1, 3, 16, 16)}),
        (models.two_convolutions(), {"image": (1, 4, 16, 16)}),
        (models.perceptron(), {"x": (4, 32)}),
        (models.dynamic_batch(), {"x": (3, 32)}),
        (models.dynamic_sides(), {"image": (2, 3, 9, 7)}),
        (models.unsupported(), {"x": (5, 1, 3)}),
    ],
    ids=["convolutional", "two_convolutions", "perceptron", "dynamic_batch", "dynamic_sides", "unsupported"],
)
def test_onnxruntime_runs_it_with_outputs_that_vary(model: onnx.ModelProto, feed: dict[str, tuple[int, ...]]) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    first, second = (
        session.run(None, {name: rng.standard_normal(shape).astype(np.float32) for name, shape in feed.items()})[0]
        for _ in range(2)
    )
    assert np.isfinite(first).all()
    assert first.std() > 0.01
    assert not np.allclose(first, second)


def test_seeds_give_different_weights() -> None:
    one, other = models.perceptron(seed=1), models.perceptron(seed=2)
    assert one.SerializeToString() != other.SerializeToString()
    assert one.SerializeToString() == models.perceptron(seed=1).SerializeToString()


def test_external_data_lies_outside_the_file(tmp_path: Path) -> None:
    path = models.write_external_data(tmp_path)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    stored = onnx.load(path, load_external_data=False)
    assert {i.data_location for i in stored.graph.initializer} == {onnx.TensorProto.EXTERNAL}


def test_a_truncated_file_does_not_parse(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"[Pp]ars"):
        onnx.load(models.write_truncated(tmp_path))
