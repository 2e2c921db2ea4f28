"""What one core can do in fp32: multiply-adds on values that never leave its registers.

    python benchmarks/peak.py

The kernel is compiled by TVM for the host target: independent chains ``r = r · x + y`` of full vectors, enough of them
to keep every unit busy while earlier results are on their way. How many are enough, and how many fit into the
registers, differs by machine, so several numbers are tried and the best run counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# Latency × units: 8 on today's x86 cores, 16 on wide Arm ones. 16 registers (AVX2) hold 12 chains, 32 hold 24.
_CHAINS = (8, 12, 16, 24)
_STEPS = 200_000
_REPEATS = 200


def measure_peak_gflops() -> float:
    """GFLOP/s of one core, measured in a process of its own on one of this thread's cores."""
    command = [sys.executable, "-m", "benchmarks.peak"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["gflops_per_core"])


def chains(count: int, lanes: int, steps: int) -> Any:
    """The PrimFunc: x and y (lanes,), r (count, lanes), all fp32; r is updated ``steps`` times in registers."""
    from tvm.script import tirx as T

    @T.prim_func(s_tir=True)
    def main(
        x: T.Buffer((lanes,), "float32"),  # type: ignore[valid-type]
        y: T.Buffer((lanes,), "float32"),  # type: ignore[valid-type]
        r: T.Buffer((count, lanes), "float32"),  # type: ignore[valid-type]
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        registers = T.alloc_buffer((count, lanes), scope="local")
        for chain in T.unroll(count):
            for lane in T.vectorized(lanes):
                registers[chain, lane] = r[chain, lane]
        for _ in T.serial(steps):
            for chain in T.unroll(count):
                for lane in T.vectorized(lanes):
                    registers[chain, lane] = registers[chain, lane] * x[lane] + y[lane]
        for chain in T.unroll(count):
            for lane in T.vectorized(lanes):
                r[chain, lane] = registers[chain, lane]

    return main


def gflops(count: int) -> float:
    """The best rate of a kernel with so many chains."""
    import numpy as np
    import tvm
    from tvm.target import Target

    from tuner.targets import host_target

    spec = host_target()
    lanes = spec.vector_bits // 32
    built = tvm.compile(tvm.IRModule({"main": chains(count, lanes, _STEPS)}), target=Target(spec.tvm))
    # r tends to y / (1 − x) = 2: neither infinite nor denormal.
    x, y = np.full(lanes, 0.5, np.float32), np.full(lanes, 1.0, np.float32)
    arguments = [tvm.runtime.tensor(array) for array in (x, y, np.zeros((count, lanes), np.float32))]
    built["main"](*arguments)
    if not np.allclose(arguments[2].numpy(), 2.0):
        raise SystemExit("The kernel computes something else.")
    timed = built.mod.time_evaluator("main", tvm.cpu(), number=1, repeat=_REPEATS)(*arguments)
    return float(2 * count * lanes * _STEPS / min(timed.results) / 1e9)


def main() -> int:
    rates = {count: round(gflops(count), 1) for count in _CHAINS}
    for count, rate in rates.items():
        print(f"{count:2d} chains: {rate:6.1f} GFLOP/s")
    print(json.dumps({"gflops_per_core": max(rates.values())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
