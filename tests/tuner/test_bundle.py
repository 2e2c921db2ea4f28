"""The bundle: complete, reproducible, checked by its own runner, and refused when changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from tests.tuner.networks import Network, compile_model
from tuner.bundle import (
    BundleError,
    bundle_files,
    bundle_name,
    read_manifest,
    requirements,
    unpack_bundle,
    verify_bundle,
    write_bundle,
)
from tuner.roofline import Roofline
from tuner.roofline_kernels import describe_roofline
from tuner.targets import find_target, host_target
from tuner.verify import verify_module


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return compile_model(models.convolutional(), tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def manifest(network: Network) -> dict[str, Any]:
    imported = network.imported
    numerics = verify_module(
        network.module, network.samples, network.reference, inputs=imported.inputs, outputs=imported.outputs, threads=2
    )
    measured = {"median_us": 120.0, "spread_us": 2.0, "runs": 10}
    return {
        "model": {"name": "tiny", "sha256": hashlib.sha256(network.onnx_path.read_bytes()).hexdigest()},
        "target": host_target().as_dict() | {"device": "a test machine"},
        "module": "module.so",
        "functions": {"max_pool2d": {"flops": 1e5, "bytes": 4096}},
        "roofline": describe_roofline(host_target()),
        "threads": 2,
        "inputs": [spec.as_dict() for spec in imported.inputs],
        "outputs": [spec.as_dict() for spec in imported.outputs],
        "numerics": numerics.as_dict(),
        "outcome": "no_improvement",
        "seed": 0,
        "latency": measured,
        "baseline": measured,
        "onnxruntime": None,
    }


@pytest.fixture(scope="module")
def bundle(network: Network, manifest: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny-host.tar.gz"
    write(path, network, manifest)
    return path


def write(path: Path, network: Network, manifest: dict[str, Any]) -> dict[str, Any]:
    return write_bundle(
        path=path,
        module=network.module,
        manifest=manifest,
        samples=network.samples,
        reference=network.reference,
        records=[{"workload": "w", "latency_us": 1.5}],
    )


def repack(bundle: Path, output: Path, changes: dict[str, bytes]) -> Path:
    with tarfile.open(bundle) as old, tarfile.open(output, "w:gz") as new:
        for member in old:
            stream = old.extractfile(member)
            assert stream is not None
            data = changes.get(member.name, stream.read())
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return output


def test_every_file_is_there_with_its_hash(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == bundle_files(
        json.loads((tmp_path / "manifest.json").read_text())
    )
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert found == read_manifest(bundle)
    assert sorted(found["files"]) == sorted(set(bundle_files(found)) - {"manifest.json"})
    for name, entry in found["files"].items():
        data = (tmp_path / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    assert json.loads((tmp_path / "records.json").read_text())["records"] == [{"workload": "w", "latency_us": 1.5}]
    assert (tmp_path / "requirements.txt").read_text() == requirements()
    assert "apache-tvm==" in requirements()
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    pinned = [f"{each['name']}=={each['version']}" for each in bill["components"]]
    assert pinned == requirements().split()


def test_the_same_content_gives_the_same_bytes(
    bundle: Path, network: Network, manifest: dict[str, Any], tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere.tar.gz"
    write(again, network, dict(reversed(manifest.items())))
    assert again.read_bytes() == bundle.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere.tar.gz"]


def test_a_failed_write_leaves_nothing_behind(network: Network, manifest: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write(tmp_path / "a.tar.gz", network, {key: value for key, value in manifest.items() if key != "inputs"})
    with pytest.raises(ValueError, match="JSON compliant"):
        write(tmp_path / "a.tar.gz", network, manifest | {"seconds": float("nan")})
    assert list(tmp_path.iterdir()) == []


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # An empty environment, as far as possible: neither this checkout nor its settings reach the bundle.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    command = [sys.executable, "-W", "error", "run.py", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_run_py_says_ok_and_a_latency(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "OK: tiny on host agrees with ONNX Runtime" in done.stdout
    assert re.search(r"latency \d+\.\d us \(median of \d+ runs.* 2 threads\)", done.stdout)


def test_run_py_profiles_every_function(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    done = run(tmp_path, "--profile", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["profile"]
    functions = {each["function"]: each for each in found["functions"]}
    assert functions.keys() >= manifest["functions"].keys()
    for name, work in manifest["functions"].items():
        each = functions[name]
        assert each["us"] > 0
        # What is done a second is what was to be done, in the time that it took.
        assert each["gflops"] * each["us"] * 1e3 == pytest.approx(each["calls"] * work["flops"])
        assert each["gb_s"] * each["us"] * 1e3 == pytest.approx(each["calls"] * work["bytes"])
    assert found["peak_gflops"] > 1
    assert found["bandwidth_gb_s"] > 0.1
    # The standalone script and the service mean the same by a roofline.
    roofline = Roofline(peak_gflops=found["peak_gflops"], bandwidth_gb_s=found["bandwidth_gb_s"])
    for name, work in manifest["functions"].items():
        each = functions[name]
        flops, moved = each["calls"] * work["flops"], each["calls"] * work["bytes"]
        percent = roofline.percent(flops=flops, traffic_bytes=moved, latency_us=each["us"])
        assert each["percent_of_roofline"] == pytest.approx(percent)
    told = run(tmp_path, "--profile").stdout
    assert re.search(r"^all functions .* of a run; at best", told, flags=re.MULTILINE)


def test_run_py_notices_wrong_outputs(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    with np.load(tmp_path / "samples.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    arrays["output.logits"] = arrays["output.logits"] * np.float32(1.001)
    np.savez(tmp_path / "samples.npz", **arrays)
    found = json.loads((tmp_path / "manifest.json").read_text())
    found["files"]["samples.npz"]["sha256"] = hashlib.sha256((tmp_path / "samples.npz").read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    done = run(tmp_path, "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert not answer["ok"]
    assert len(answer["problems"]) == 3
    assert "output logits: error" in answer["problems"][0]


def test_run_py_refuses_a_changed_module(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    with (tmp_path / "module.so").open("ab") as stream:
        stream.write(b"\0")
    done = run(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "WRONG: module.so was changed" in done.stdout
    assert "latency" not in done.stdout


def test_verify_bundle_runs_it(bundle: Path) -> None:
    found = verify_bundle(bundle)
    assert found.ok, found.problems
    assert found.result is not None
    assert found.result["latency_us"] > 0
    assert found.result["threads"] == 2


def test_verify_bundle_names_a_changed_file_and_runs_nothing(bundle: Path, tmp_path: Path) -> None:
    changed = repack(bundle, tmp_path / "changed.tar.gz", {"run.py": b"raise SystemExit(0)\n"})
    found = verify_bundle(changed)
    assert not found.ok
    assert found.problems == ("run.py was changed: its SHA-256 is not the manifest's",)
    assert found.result is None


def test_what_is_no_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tar.gz").write_text("hello")
    (tmp_path / "gzip.tar.gz").write_bytes(gzip.compress(b"hello"))
    (tmp_path / "cut.tar.gz").write_bytes(bundle.read_bytes()[:2000])
    for path in tmp_path.iterdir():
        with pytest.raises(BundleError):
            verify_bundle(path)


@pytest.mark.parametrize("kind", ["outside", "link", "stranger"])
def test_archives_with_anything_else_are_not_unpacked(bundle: Path, tmp_path: Path, kind: str) -> None:
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(evil, "w:gz") as archive:
        entry = tarfile.TarInfo({"outside": "../run.py", "link": "module.so", "stranger": "sitecustomize.py"}[kind])
        if kind == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry, io.BytesIO(b""))
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(BundleError, match="does not belong"):
        unpack_bundle(evil, folder)
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "run.py").exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("digits_cnn.onnx", "digits_cnn-host.tar.gz"),
        ("../../etc/passwd", "passwd-host.tar.gz"),
        ("C:\\models\\my net.onnx", "my_net-host.tar.gz"),
        ("...", "model-host.tar.gz"),
        ("字" * 200, "字" * 50 + "-host.tar.gz"),
    ],
)
def test_names_are_safe(model: str, name: str) -> None:
    assert bundle_name(model, "host") == name


def test_the_python_of_the_readme_runs(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    assert code is not None
    prelude = "import numpy as np\narray = np.ones((1, 3, 16, 16), 'float32')\n"
    (tmp_path / "use.py").write_text(prelude + code.group(1) + "print(outputs['logits'].shape)\n")
    done = subprocess.run(
        [sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "(1, 10)\n", done.stderr


@pytest.fixture(scope="module")
def program(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run.cc of a bundle, built by the commands of its README, in the bundle's folder."""
    if shutil.which("g++") is None or shutil.which("cmake") is None:
        pytest.skip("needs g++ and CMake")
    folder = tmp_path_factory.mktemp("cpp")
    unpack_bundle(bundle, folder)
    commands = re.search(r"```\n(cmake .*?)build/run\n```", (folder / "README.md").read_text(), re.DOTALL)
    assert commands is not None
    script = commands.group(1).replace("$PWD/venv/bin/python", sys.executable)
    done = subprocess.run(["sh", "-ec", script], cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "build" / "run"


def test_the_cpp_program_checks_the_samples(program: Path, bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    done = subprocess.run([program, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 threads" in done.stdout
    assert done.stdout.endswith("OK: tiny on host agrees with ONNX Runtime\n")
    with np.load(tmp_path / "samples.npz") as stored:
        arrays = dict(stored.items())
    arrays["output.logits"][1] += 0.5
    np.savez(tmp_path / "samples.npz", **arrays)
    wrong = subprocess.run([program, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 1
    assert "WRONG: sample 1, output logits: error" in wrong.stdout
    assert "OK" not in wrong.stdout


@pytest.mark.parametrize("damage", ["cut", "compressed", "missing"])
def test_the_cpp_program_says_what_is_wrong_with_its_files(
    program: Path, bundle: Path, tmp_path: Path, damage: str
) -> None:
    unpack_bundle(bundle, tmp_path)
    samples = tmp_path / "samples.npz"
    if damage == "cut":
        samples.write_bytes(samples.read_bytes()[:-40])
    elif damage == "compressed":
        with np.load(samples) as stored:
            arrays = dict(stored.items())
        np.savez_compressed(samples, **arrays)
    else:
        samples.unlink()
    done = subprocess.run([program, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert {"cut": "no .npz file", "compressed": "is compressed", "missing": "cannot be read"}[damage] in done.stderr


def test_the_dockerfile_takes_every_file(bundle: Path, tmp_path: Path) -> None:
    unpack_bundle(bundle, tmp_path)
    lines = (tmp_path / "Dockerfile").read_text().splitlines()
    assert "FROM --platform=linux/amd64 python:3.11-slim" in lines
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert copied == {path.name for path in tmp_path.iterdir()} - {"Dockerfile"}
    assert 'CMD ["python", "run.py"]' in lines
    assert "docker run --rm network" in (tmp_path / "README.md").read_text()


def objects(network: Network, manifest: dict[str, Any], folder: Path) -> Path:
    """A bundle of object files for RISC-V; what is in them does not matter."""
    target = find_target("riscv64").as_dict()
    path = folder / "tiny-riscv64.tar.gz"
    write(path, network, manifest | {"target": target, "module": "module.tar"})
    return path


def test_a_bundle_of_object_files_says_how_to_link_them(
    network: Network, manifest: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    unpack_bundle(objects(network, manifest, tmp_path), folder)
    assert (folder / "module.tar").is_file()
    assert (folder / "run.cc").is_file()
    assert not (folder / "Dockerfile").exists()  # no image has the runtime
    readme = (folder / "README.md").read_text()
    assert "zig cc -target riscv64-linux-gnu -shared -fPIC -o module.so *.o -lm" in readme
    assert "no TVM runtime on PyPI" in readme
    done = run(folder)
    assert done.returncode == 1
    assert "module.tar holds object files for riscv64-linux-gnu: link them first" in done.stderr


def test_a_module_that_the_manifest_does_not_name_is_not_run(bundle: Path, tmp_path: Path) -> None:
    added = tmp_path / "added.tar.gz"
    with tarfile.open(bundle) as old, tarfile.open(added, "w:gz") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        other = tarfile.TarInfo("module.dylib")
        other.size = 4
        new.addfile(other, io.BytesIO(b"evil"))
    assert verify_bundle(added).problems == ("module.dylib is not in the manifest",)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    unpack_bundle(bundle, folder)
    (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"module": "module.so"', '"module": "module.dylib"')
    )
    assert run(folder).returncode != 0  # module.so is there, and not what is asked for


def test_a_bundle_for_another_machine_is_checked_and_not_run(
    network: Network, manifest: dict[str, Any], tmp_path: Path
) -> None:
    bundle = objects(network, manifest, tmp_path)
    checked = verify_bundle(bundle)
    assert (checked.ok, checked.result) == (True, None)
    changed = repack(bundle, tmp_path / "changed.tar.gz", {"module.tar": b"something else"})
    assert verify_bundle(changed).problems == ("module.tar was changed: its SHA-256 is not the manifest's",)


def test_a_bundle_is_not_run_where_there_is_no_runtime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tvm", None)
    checked = verify_bundle(bundle)
    assert (checked.ok, checked.result) == (True, None)
    assert "requirements.txt names is not installed here (tvm)" in str(checked.not_run)
