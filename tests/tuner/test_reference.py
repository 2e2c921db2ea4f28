"""The reference: seeded inputs, the user's samples, and ONNX Runtime in its own process."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.fuzz.byte_mutations import mutate_bytes
from tuner.errors import ModelError
from tuner.frontend.tensors import TensorSpec
from tuner.reference import load_samples, random_samples, reference_outputs

X = TensorSpec(name="x", shape=(4, 32), dtype="float32")
Y = TensorSpec(name="y", shape=(4, 8), dtype="float32")


def test_random_inputs_depend_on_the_seed_only() -> None:
    one, again, other = (random_samples([X], seed=seed) for seed in (1, 1, 2))
    assert len(one) == 3
    np.testing.assert_array_equal(one[2]["x"], again[2]["x"])
    assert not np.array_equal(one[0]["x"], one[1]["x"])
    assert not np.array_equal(one[0]["x"], other[0]["x"])


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int64", 0, 1), ("bool", 0, 1), ("uint8", 0, 255), ("int8", -128, 127)]
)
def test_integers_stay_in_a_sane_range(dtype: str, low: int, high: int) -> None:
    values = random_samples([TensorSpec(name="i", shape=(5000,), dtype=dtype)], seed=0, count=1)[0]["i"]
    assert values.dtype == dtype
    assert (int(values.min()), int(values.max())) == (low, high)


def test_outputs_are_those_of_the_weights(perceptron_model: Path) -> None:
    weights = {
        tensor.name: np.frombuffer(tensor.raw_data, np.float32).reshape(tensor.dims)
        for tensor in models.perceptron().graph.initializer
    }
    samples = random_samples([X], seed=0)
    outputs = reference_outputs(perceptron_model, samples, inputs=[X], outputs=[Y], threads=1)
    for sample, output in zip(samples, outputs, strict=True):
        hidden = np.maximum(sample["x"] @ weights["w1"] + weights["b1"], 0)
        np.testing.assert_allclose(output["y"], hidden @ weights["w2"], rtol=1e-4, atol=1e-4)


def test_a_model_that_onnxruntime_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError) as raised:
        reference_outputs(path, random_samples([X], seed=0), inputs=[X], outputs=[Y], threads=1)
    assert raised.value.code == "reference_failed"


def test_samples_that_unpack_to_too_much_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((2**14, 4, 32), np.float32))
    assert path.stat().st_size < 2**15
    assert len(load_samples(path, [X])) == 2**14
    monkeypatch.setattr("tuner.reference.MAX_SAMPLES_BYTES", 2**22)
    with pytest.raises(ModelError) as raised:
        load_samples(path, [X])
    assert raised.value.code == "samples_invalid"
    assert "unpacked" in raised.value.message


def test_damaged_samples_are_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.zeros((4, 32), np.float32))
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(300):
        path.write_bytes(mutate_bytes(content, content, rng))
        with contextlib.suppress(ModelError, MemoryError):  # a header may say that there are exabytes
            assert load_samples(path, [X])[0]["x"].shape == X.shape


def test_the_users_samples_are_split_and_cast(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.arange(2 * 4 * 32, dtype=np.float64).reshape(2, 4, 32))
    samples = load_samples(path, [X])
    assert len(samples) == 2
    assert samples[1]["x"].dtype == np.float32
    assert samples[1]["x"][0, 0] == 128


def test_a_single_sample_may_come_without_the_leading_axis(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.ones((4, 32), np.float32))
    assert len(load_samples(path, [X])) == 1


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": np.ones((1, 4, 32))}, "image"),
        ({"x": np.ones((1, 4, 31))}, "expected n x 4x32"),
        ({"x": np.ones((0, 4, 32))}, "expected n x 4x32"),
        ({"x": np.ones((1, 4, 32), complex)}, "complex128"),
        ({"x": np.array([{}], dtype=object)}, "plain arrays"),
    ],
    ids=["name", "shape", "empty", "type", "pickle"],
)
def test_samples_that_do_not_fit_say_why(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=said) as raised:
        load_samples(path, [X])
    assert raised.value.code == "samples_invalid"


def test_a_file_that_is_no_npz_says_so(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_text("1, 2, 3")
    with pytest.raises(ModelError, match=r"not an \.npz"):
        load_samples(path, [X])
