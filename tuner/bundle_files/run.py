"""Check this bundle on this machine: python run.py [--benchmark] [--profile] [--json]

Checks every file's SHA-256 against manifest.json, loads the module, compares its outputs on samples.npz with ONNX
Runtime's, and times it; with --profile, function by function. Exit status 0: OK; 1: something differs. Needs only what
requirements.txt names.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MANIFEST = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))

# Object files have no library before somebody links one; of all others only what the manifest names is loaded.
LINKED = ("module.so", "module.dylib", "module.dll")
NAMES = LINKED if MANIFEST["module"] == "module.tar" else (MANIFEST["module"],)
MODULE = next((HERE / name for name in NAMES if (HERE / name).is_file()), HERE / NAMES[0])
if not MODULE.is_file() and MANIFEST["module"] == "module.tar":
    sys.exit(f"module.tar holds object files for {MANIFEST['target']['triple']}: link them first, as README.md says.")

# Both are read when TVM is loaded. Its own default would be half of the cores on x86.
os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
os.environ.setdefault("TVM_NUM_THREADS", str(MANIFEST["threads"]))
os.environ.setdefault("TVM_BIND_THREADS", "0")
THREADS = int(os.environ["TVM_NUM_THREADS"])

import numpy as np  # noqa: E402
import tvm  # noqa: E402
import tvm_ffi  # noqa: E402
from tvm.runtime import load_module, tensor  # noqa: E402
from tvm.runtime.vm import VirtualMachine  # noqa: E402

ON_GPU = MANIFEST["target"]["tvm"].get("kind") == "cuda"


class Network:
    """The network: call it with the inputs by name; returns the outputs by name, as NumPy arrays."""

    def __init__(self) -> None:
        if ON_GPU:
            load_cuda()
        self.device = tvm.cuda() if ON_GPU else tvm.cpu()
        self.module = load_module(str(MODULE))
        self.machine = VirtualMachine(self.module, self.device)
        self.main = self.machine["main"]

    def __call__(self, **inputs: Any) -> dict[str, np.ndarray]:
        return self.fetch(self.main(*self.prepare(inputs)))

    def prepare(self, inputs: Mapping[str, Any]) -> list[Any]:
        arrays = (np.ascontiguousarray(inputs[spec["name"]], dtype=spec["dtype"]) for spec in MANIFEST["inputs"])
        return [self.tensor(array) for array in arrays]

    def tensor(self, array: np.ndarray) -> Any:
        return tensor(array, device=self.device)

    def fetch(self, returned: Any) -> dict[str, np.ndarray]:
        values = [returned] if hasattr(returned, "numpy") else list(returned)
        return {spec["name"]: value.numpy() for spec, value in zip(MANIFEST["outputs"], values, strict=True)}

    def time_us(self, arguments: Sequence[Any]) -> float:
        """How long one run takes."""
        started = time.perf_counter()
        self.main(*arguments)
        if ON_GPU:
            self.device.sync()
        return (time.perf_counter() - started) * 1e6

    def function(self, name: str) -> Any:
        """One of the module's functions; None where it has none of that name."""
        return self.module.get_function(name, query_imports=True)


def load_cuda() -> None:
    """TVM's part for CUDA, which the runtime alone does not load, behind the library of NVIDIA's that it needs."""
    packages = Path(tvm.__file__).parents[1]
    try:
        for path in (*packages.glob("nvidia/*/lib/libcudart.so.*"), packages / "tvm/lib/libtvm_runtime_cuda.so"):
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        sys.exit(f"No GPU can be used here: {error}. The module needs an NVIDIA GPU and its driver (580 or later).")
    # The module holds PTX, which the driver compiles: nothing is left to do for this hook.
    hook = "tvm_callback_cuda_compile"
    tvm_ffi.register_global_func(hook, lambda code: code if isinstance(code, bytes) else code.encode(), override=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", action="store_true", help="time it for longer (about 5 s instead of 1 s)")
    parser.add_argument("--profile", action="store_true", help="time every function of the network, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    given = parser.parse_args()
    problems = check_files()
    result: dict[str, Any] = {"ok": False, "problems": problems}
    # A changed module is not run.
    if not problems:
        started = time.perf_counter()
        network = Network()
        load_s = time.perf_counter() - started
        problems += check_outputs(network)
        latency = measure(network, seconds=5.0 if given.benchmark else 1.0)
        result = {"ok": not problems, "problems": problems, "threads": THREADS, "load_s": load_s, **latency}
        if given.profile:
            result["profile"] = profile(network)
    if given.json:
        print(json.dumps(result))
    else:
        show(result)
    return 1 if problems else 0


def check_files() -> list[str]:
    """Files whose SHA-256 is not what the manifest says."""
    problems = []
    for name, entry in MANIFEST["files"].items():
        path = HERE / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256(path) != entry["sha256"]:
            problems.append(f"{name} was changed: its SHA-256 is not the manifest's")
    return problems


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def samples() -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Inputs and ONNX Runtime's outputs by name, one pair a sample."""
    with np.load(HERE / "samples.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    inputs = {name[len("input.") :]: array for name, array in arrays.items() if name.startswith("input.")}
    outputs = {name[len("output.") :]: array for name, array in arrays.items() if name.startswith("output.")}
    for index in range(len(next(iter(outputs.values())))):
        yield {n: array[index] for n, array in inputs.items()}, {n: array[index] for n, array in outputs.items()}


def check_outputs(network: Network) -> list[str]:
    """Outputs that are further from ONNX Runtime's than the manifest's tolerance."""
    tolerances = {entry["name"]: entry["tolerance"] for entry in MANIFEST["numerics"]["outputs"]}
    problems = []
    for number, (inputs, expected) in enumerate(samples()):
        for name, ours in network(**inputs).items():
            problem = difference(ours, expected[name], tolerances[name])
            if problem:
                problems.append(f"sample {number}, output {name}: {problem}")
    return problems


def difference(ours: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """What is wrong with an output, in words; None when it is right."""
    if ours.shape != expected.shape or ours.dtype != expected.dtype:
        return f"{ours.dtype} {ours.shape} instead of {expected.dtype} {expected.shape}"
    if expected.dtype.kind in "biu":
        wrong = int((ours != expected).sum())
        return f"{wrong} integers differ" if wrong else None
    if not np.isfinite(ours).all():
        return "holds NaN or infinity"
    error = np.abs(ours.astype("float64") - expected.astype("float64")).max(initial=0.0)
    scale = np.abs(expected.astype("float64")).max(initial=0.0)
    return f"error {error:.3g} exceeds {tolerance:g} x {scale:.3g}" if error > tolerance * scale else None


def measure(network: Network, *, seconds: float) -> dict[str, Any]:
    """Median and median absolute deviation of single runs."""
    inputs, _ = next(samples())
    arguments = network.prepare(inputs)
    network.main(*arguments)
    times_us: list[float] = []
    deadline = time.perf_counter() + seconds
    while not times_us or time.perf_counter() < deadline:
        times_us.append(network.time_us(arguments))
    median_us = statistics.median(times_us)
    spread_us = statistics.median(abs(value - median_us) for value in times_us)
    return {"latency_us": median_us, "spread_us": spread_us, "runs": len(times_us)}


def profile(network: Network, *, seconds: float = 3.0) -> dict[str, Any] | None:
    """What every function takes in a run: medians over runs, with what this machine could do at best beside it.

    The module has the instrument in it (profile.c): a function's time is from the moment that it is called until it
    returns. ``percent_of_roofline`` is the least time that its arithmetic and its memory traffic could take ÷ its time.
    None for a module without an instrument, and on a GPU, where functions return before they are done.
    """
    attach, take, name_of = (network.function(f"tessera_profile_{name}") for name in ("attach", "take", "name"))
    if ON_GPU or attach is None:
        return None
    inputs, _ = next(samples())
    arguments = network.prepare(inputs)
    attach(network.machine.module)
    network.main(*arguments)
    called = [str(name_of(index)) for index in range(take(network.tensor(np.zeros(1))))]
    times_us = network.tensor(np.zeros(max(len(called), 1)))
    runs: list[np.ndarray] = []
    deadline = time.perf_counter() + seconds
    while len(runs) < 5 or time.perf_counter() < deadline:
        network.main(*arguments)
        take(times_us)
        runs.append(times_us.numpy().copy())
    medians_us = np.median(runs, axis=0)
    peak_gflops, bandwidth_gb_s = roofline(network)
    known = MANIFEST.get("functions", {})
    functions = []
    for name, calls in Counter(called).items():
        us = float(sum(medians_us[index] for index, each in enumerate(called) if each == name))
        if name not in known and us < 1.0:
            continue  # the machine's own small change
        work = known.get(name, {"flops": 0.0, "bytes": 0})
        flops, moved = calls * work["flops"], calls * work["bytes"]
        least_us = max(flops / (peak_gflops * 1e3), moved / (bandwidth_gb_s * 1e3))
        functions.append(
            {
                "function": name,
                "calls": calls,
                "us": us,
                "gflops": flops / us / 1e3 if us else 0.0,
                "gb_s": moved / us / 1e3 if us else 0.0,
                "percent_of_roofline": 100 * least_us / us if us else 0.0,
            }
        )
    functions.sort(key=lambda each: -each["us"])
    return {"functions": functions, "peak_gflops": peak_gflops, "bandwidth_gb_s": bandwidth_gb_s}


def roofline(network: Network) -> tuple[float, float]:
    """What the machine does at best, by two functions of the module: GFLOP/s in registers and the first cache, GB/s of
    copying, read and written."""
    best_us, rates = network.function("tessera_profile_best_us"), {}
    for name, work in MANIFEST["roofline"].items():
        arguments = [network.tensor(np.ones(shape, dtype=np.float32)) for shape in work["shapes"]]
        rates[name] = work.get("flops", work.get("bytes")) / best_us(network.module, name, *arguments) / 1e3
    return rates["tessera_roofline_peak"], rates["tessera_roofline_copy"]


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def show_profile(result: dict[str, Any]) -> None:
    found, latency_us = result["profile"], result["latency_us"]
    print(f"{'function':48} {'calls':>5} {'us':>9} {'share':>6} {'GFLOP/s':>8} {'GB/s':>7} {'roofline':>8}")
    total_us = sum(each["us"] for each in found["functions"])
    for each in found["functions"]:
        print(
            f"{each['function'][:48]:48} {each['calls']:5d} {each['us']:9.1f} {each['us'] / total_us:6.1%} "
            f"{each['gflops']:8.1f} {each['gb_s']:7.1f} {each['percent_of_roofline']:7.0f}%"
        )
    print(
        f"all functions {total_us:.1f} us, {total_us / latency_us:.2f} of a run; at best {found['peak_gflops']:.3g} "
        f"GFLOP/s and {found['bandwidth_gb_s']:.3g} GB/s here"
    )


def show(result: dict[str, Any]) -> None:
    for problem in result["problems"]:
        print(f"WRONG: {problem}")
    if "latency_us" in result:
        print(
            f"latency {result['latency_us']:.1f} us (median of {result['runs']} runs, deviation "
            f"{result['spread_us']:.1f} us, {result['threads']} threads), loaded in {result['load_s']:.2f} s"
        )
    if result.get("profile"):
        show_profile(result)
    elif "profile" in result:
        print("This module cannot be profiled: only those for CPUs can, and not those for Windows.")
    if result["ok"]:
        print(f"OK: {MANIFEST['model']['name']} on {MANIFEST['target']['name']} agrees with ONNX Runtime")


if __name__ == "__main__":
    sys.exit(main())
