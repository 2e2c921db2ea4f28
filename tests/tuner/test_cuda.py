"""A network for NVIDIA GPUs, built without one: PTX in every heavy function, checked on the host, unmeasured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuner import cuda
from tuner import tune as pipeline
from tuner.bundle import unpack_bundle, verify_bundle
from tuner.cost_model_store import MemoryCostModelStore
from tuner.cuda import compile_ptx
from tuner.errors import BuildError, TargetError
from tuner.events import ListSink
from tuner.records import MemoryRecordStore
from tuner.request import TuneRequest
from tuner.targets import find_target

KERNEL = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked bundle for compute capability 8.0, with ``bundle.tar.gz`` beside it."""
    folder = tmp_path_factory.mktemp("cuda")
    model = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
    request = TuneRequest(
        model_path=model,
        model_name="digits",
        target=find_target("cuda-8.0"),
        work_dir=folder,
        measure="none",
    )
    result = pipeline.tune(request, store=MemoryRecordStore(), models=MemoryCostModelStore(), sink=ListSink())
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    unpack_bundle(result.bundle, unpacked)
    result.bundle.rename(folder / "bundle.tar.gz")
    return unpacked


@pytest.fixture(scope="module")
def manifest(built: Path) -> Any:
    return json.loads((built / "manifest.json").read_text())


def kernels(module: Path) -> dict[str, str]:
    """The bodies of the kernels in a module's PTX, by name."""
    ptx = module.read_bytes()
    found = re.findall(rb"\.visible \.entry (\w+)\((.*?)^}", ptx, flags=re.DOTALL | re.MULTILINE)
    return {name.decode(): body.decode() for name, body in found}


def test_every_heavy_function_is_a_kernel_in_threads(built: Path, manifest: Any) -> None:
    assert b".target sm_80" in (built / "module.so").read_bytes()
    found = kernels(built / "module.so")
    heavy = {name: work for name, work in manifest["functions"].items() if work["flops"] > 1e5}
    assert len(heavy) >= 5
    for name in heavy:
        body = found[f"{name}_kernel"]
        threads = re.search(r"\.maxntid (\d+)", body)
        assert threads is not None
        assert int(threads.group(1)) >= 32
        assert "%tid.x" in body
        assert "%ctaid.x" in body
        assert "fma.rn.f32" in body
        assert "ld.shared" in body  # fetched by the threads of a block together
        assert "bar.sync" in body
    assert ".extern .func" not in "".join(found.values())


def test_the_bundle_says_that_nothing_was_measured(manifest: Any) -> None:
    assert manifest["outcome"] == "unmeasured"
    assert manifest["latency"] is None
    assert manifest["numerics"]["passed"]
    assert manifest["numerics"]["checked_on"] == "host"
    assert set(manifest["search"]["schedules"].values()) == {"analytic"}


def test_the_bundle_has_what_a_gpu_needs(built: Path) -> None:
    assert "nvidia-cuda-runtime==13." in (built / "requirements.txt").read_text()
    assert "--gpus all" in (built / "Dockerfile").read_text()
    assert not (built / "run.cc").exists()
    checked = verify_bundle(built.parent / "bundle.tar.gz")
    assert (checked.ok, checked.result) == (True, None)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU: run.py would use it")
def test_run_py_says_what_is_missing(built: Path) -> None:
    done = subprocess.run([sys.executable, "run.py"], cwd=built, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No GPU can be used here" in done.stderr
    assert "NVIDIA GPU and its driver" in done.stderr


def test_gpus_are_not_measured(tmp_path: Path) -> None:
    request = TuneRequest(
        model_path=tmp_path / "any.onnx", model_name="any", target=find_target("cuda-8.0"), work_dir=tmp_path
    )
    with pytest.raises(TargetError, match="No device here") as caught:
        pipeline.tune(request, store=MemoryRecordStore(), models=MemoryCostModelStore(), sink=ListSink())
    assert caught.value.code == "no_device"


@pytest.mark.parametrize(
    "arch", sorted({str(find_target(f"cuda-{n}").tvm["arch"]) for n in ("7.5", "8.6", "8.9", "9.0")})
)
def test_kernels_are_compiled_for_every_capability(arch: str) -> None:
    assert f".target {arch}".encode() in compile_ptx(KERNEL, arch=arch)


def test_a_kernel_that_is_none_is_told_with_the_compilers_words() -> None:
    with pytest.raises(BuildError, match="could not be compiled for sm_80") as caught:
        compile_ptx("__global__ void broken(", arch="sm_80")
    assert caught.value.code == "kernel_failed"
    assert "error" in str(caught.value.details["message"])


def test_without_the_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BuildError, match="no compiler for CUDA") as caught:
        cuda.compile_ptx(KERNEL, arch="sm_80")
    assert caught.value.code == "cuda_compiler_missing"
    assert "tessera[cuda]" in str(caught.value.hint)
