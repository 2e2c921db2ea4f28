"""What every test may use, and what holds for every test."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests import models

# A developer's own server or data folder must not leak into the tests. TESSERA_CI and TESSERA_TEST_* steer the tests.
for name in [name for name in os.environ if name.startswith("TESSERA_")]:
    if name != "TESSERA_CI" and not name.startswith("TESSERA_TEST_"):
        del os.environ[name]

IN_CI = os.environ.get("TESSERA_CI") == "1"
MAY_SKIP_IN_CI = frozenset({"gpu", "torch", "mount"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine lacks, saying why."""
    lacking = {}
    if not Path("/dev/nvidiactl").exists():
        lacking["gpu"] = "needs an NVIDIA GPU"
    if importlib.util.find_spec("torch") is None:
        lacking["torch"] = "needs PyTorch, which Tessera does not install"
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: the machine was meant to have all but GPU, PyTorch and disks to mount."""
    report = yield
    may_skip = any(item.get_closest_marker(marker) for marker in MAY_SKIP_IN_CI)
    if IN_CI and report.skipped and not may_skip and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where nothing may be missing: {reason}"
    return report


@pytest.fixture
def convolutional_model(tmp_path: Path) -> Path:
    """A tiny Conv-Relu-MaxPool-Gemm network, input ``image`` (1, 3, 16, 16)."""
    return models.write(models.convolutional(), tmp_path / "convolutional.onnx")


@pytest.fixture
def perceptron_model(tmp_path: Path) -> Path:
    """A tiny MatMul network, input ``x`` (4, 32)."""
    return models.write(models.perceptron(), tmp_path / "perceptron.onnx")


@pytest.fixture
def dynamic_batch_model(tmp_path: Path) -> Path:
    """The perceptron with a named batch dimension."""
    return models.write(models.dynamic_batch(), tmp_path / "dynamic_batch.onnx")


@pytest.fixture
def unsupported_model(tmp_path: Path) -> Path:
    """LSTM once and Celu twice, which cannot be imported."""
    return models.write(models.unsupported(), tmp_path / "unsupported.onnx")


@pytest.fixture
def digits_model() -> Path:
    """The shipped example: input ``image`` (1, 1, 32, 32)."""
    return Path(__file__).resolve().parents[1] / "examples" / "digits_cnn.onnx"
