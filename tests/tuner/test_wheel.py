"""A bundle as a wheel: pip installs it, and the network runs from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.networks import Network
from tests.tuner.test_bundle import bundle, manifest, network, write
from tuner.bundle import BundleError
from tuner.targets import find_target
from tuner.wheel import package_name, write_wheel

__all__ = ["bundle", "manifest", "network"]  # fixtures


def test_a_wheel_is_installed_and_runs(bundle: Path, network: Network, tmp_path: Path) -> None:
    wheel = write_wheel(bundle, tmp_path / "wheels")
    assert wheel.read_bytes() == write_wheel(bundle, tmp_path / "again").read_bytes()
    site = tmp_path / "site"
    # What the wheel requires is installed already: nothing is fetched.
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)
    sample, expected = network.samples[0], network.reference[0]
    np.savez(tmp_path / "inputs.npz", **sample)  # type: ignore[arg-type]
    program = (
        "import sys, numpy as np\n"
        "from tiny import run\n"
        "outputs = run(**np.load(sys.argv[1]))\n"
        "np.savez(sys.argv[2], **outputs)\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(site)}
    outputs = tmp_path / "outputs.npz"
    command = [sys.executable, "-c", program, str(tmp_path / "inputs.npz"), str(outputs)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    found = np.load(outputs)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


def test_a_wheel_requires_what_the_bundle_does(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(write_wheel(bundle, tmp_path)) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        about = archive.read(metadata).decode()
        required = archive.read("tiny/requirements.txt").decode().split()
        assert json.loads(archive.read("tiny/manifest.json"))["model"]["name"] == "tiny"
    assert [line.removeprefix("Requires-Dist: ") for line in about.splitlines() if "Requires-Dist" in line] == required


def test_object_files_make_no_wheel(network: Network, manifest: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tiny-riscv64.tar.gz"
    write(path, network, manifest | {"target": find_target("riscv64").as_dict(), "module": "module.tar"})
    with pytest.raises(BundleError, match="no wheel of the TVM runtime"):
        write_wheel(path, tmp_path)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("squeezenet", "squeezenet"),
        ("MobileNet V2-1.0.onnx", "mobilenet_v2_1_0"),
        ("3d", "model_3d"),
        ("class", "model_class"),
        ("日本", "model_"),
    ],
)
def test_names_can_be_imported(model: str, name: str) -> None:
    assert package_name(model) == name
    assert name.isidentifier()
