"""Numerics: what passes, what never passes, and that a wrong weight is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import models
from tests.tuner.networks import Network, compile_model, compile_module
from tuner.errors import VerificationError, WorkerError
from tuner.frontend.convert import import_model
from tuner.frontend.tensors import TensorSpec
from tuner.verify import NumericsReport, compare_outputs, verify_module

NAN, INFINITY = float("nan"), float("inf")


def report(ours: object, reference: object, *, dtype: str = "float32") -> NumericsReport:
    spec = TensorSpec(name="y", shape=np.shape(reference), dtype=dtype)  # type: ignore[arg-type]
    return compare_outputs([{"y": np.asarray(ours, dtype)}], [{"y": np.asarray(reference, dtype)}], outputs=[spec])


def test_errors_are_relative_to_the_largest_reference_value() -> None:
    found = report([100.0, 0.005], [100.0, 0.0])
    assert found.passed
    assert found.max_abs_error == pytest.approx(0.005)
    assert found.max_rel_error == pytest.approx(5e-5)
    assert not report([100.0, 0.02], [100.0, 0.0]).passed


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        ([NAN, 1.0], [1.0, 1.0]),
        ([INFINITY, 1.0], [1.0, 1.0]),
        ([NAN, 1.0], [NAN, 1.0]),
        ([INFINITY], [INFINITY]),
        ([1e-9], [0.0]),
    ],
)
def test_nan_infinity_and_noise_around_zero_never_pass(ours: list[float], reference: list[float]) -> None:
    found = report(ours, reference)
    assert not found.passed
    with pytest.raises(VerificationError):
        found.require()
    json.loads(json.dumps(found.as_dict(), allow_nan=False))


def test_zeros_equal_zeros() -> None:
    assert report([0.0, 0.0], [0.0, 0.0]).passed


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_integers_are_exact(dtype: str) -> None:
    assert report([1, 0], [1, 0], dtype=dtype).passed
    assert not report([1, 1], [1, 0], dtype=dtype).passed


def test_large_integers_do_not_wrap_around() -> None:
    assert report([2**63 - 1], [-(2**63)], dtype="int64").max_abs_error == pytest.approx(2.0**64)


def test_half_precision_is_looser_and_says_why() -> None:
    found = report([1.001], [1.0], dtype="float16")
    assert found.passed
    assert "half precision" in found.outputs[0].tolerance_reason


def test_other_shapes_and_types_never_pass() -> None:
    spec = TensorSpec(name="y", shape=(2,), dtype="float32")
    right = [{"y": np.ones(2, np.float32)}]
    for wrong in (np.ones((1, 2), np.float32), np.ones(2, np.float64)):
        assert not compare_outputs([{"y": wrong}], right, outputs=[spec]).passed


def test_the_worst_sample_counts() -> None:
    spec = TensorSpec(name="y", shape=(1,), dtype="float32")
    right = [{"y": np.ones(1, np.float32)}] * 2
    found = compare_outputs([{"y": np.ones(1, np.float32)}, {"y": np.full(1, 1.5, np.float32)}], right, outputs=[spec])
    assert found.max_rel_error == 0.5
    assert not found.passed


def test_nothing_compared_does_not_pass() -> None:
    assert not compare_outputs([], [], outputs=[TensorSpec(name="y", shape=(1,), dtype="float32")]).passed


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return compile_model(models.convolutional(), tmp_path_factory.mktemp("network"))


def verify(module: Path, network: Network) -> NumericsReport:
    imported = network.imported
    return verify_module(
        module, network.samples, network.reference, inputs=imported.inputs, outputs=imported.outputs, threads=2
    )


def test_a_compiled_network_agrees_with_onnxruntime(network: Network) -> None:
    found = verify(network.module, network)
    found.require()
    assert found.samples == 3
    assert 0 < found.max_abs_error < 1e-4


def test_permuting_the_channels_of_one_weight_is_noticed(network: Network, tmp_path: Path) -> None:
    model = onnx.load(network.onnx_path)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "conv.weight")
    values = numpy_helper.to_array(weight)
    swapped = values[[1, 0, *range(2, len(values))]]
    assert not np.array_equal(values, swapped)
    weight.CopyFrom(numpy_helper.from_array(swapped, weight.name))
    mutant = models.write(model, tmp_path / "mutant.onnx")
    compile_module(import_model(mutant), tmp_path / "mutant.so")
    found = verify(tmp_path / "mutant.so", network)
    assert not found.passed
    assert found.max_rel_error > 1e-3
    with pytest.raises(VerificationError, match="logits"):
        found.require()


def test_a_module_that_cannot_be_loaded_is_a_worker_error(network: Network, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF nothing")
    with pytest.raises(WorkerError) as raised:
        verify(broken, network)
    assert raised.value.code == "network_failed"
