"""Builds on another machine: how much faster does a search get?

    python benchmarks/fan_out.py [--task conv3x3] [--seconds 60] [--rounds 3]

Two machines of one core each, played by two cores of this one: the search, its builder and what it times are kept on
one core; on the other a build host (`tuner.measure.build_host`) builds for it in every second run. Runs with and
without it take turns. Needs two cores with nothing else on them.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.one_task import one_task  # noqa: E402
from benchmarks.pinning import on_cores  # noqa: E402
from benchmarks.rows import provenance  # noqa: E402
from tuner.events import ListSink  # noqa: E402
from tuner.measure.build_workers import KEY_VARIABLE, BuildHost  # noqa: E402
from tuner.measure.builder import BuildPool  # noqa: E402
from tuner.measure.runner import LocalRunner  # noqa: E402
from tuner.records import MemoryRecordStore  # noqa: E402
from tuner.request import Budget  # noqa: E402
from tuner.targets import host_target  # noqa: E402


@contextmanager
def build_host(core: int) -> Iterator[BuildHost]:
    """A build host that is kept on this core."""
    key = secrets.token_hex(32)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner.measure.build_host", str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            env={**os.environ, KEY_VARIABLE: key, "PYTHONPATH": str(ROOT)},
        )
    with process:
        os.sched_setaffinity(process.pid, {core})
        try:
            yield BuildHost(host="127.0.0.1", port=port, key=key)
        finally:
            process.kill()


def trials_per_s(task: str, seconds: float, hosts: Sequence[BuildHost], *, seed: int) -> float:
    """Of one search on one core."""
    spec, store = host_target(), MemoryRecordStore()
    with (
        BuildPool(spec, workers=1, hosts=hosts) as builder,
        LocalRunner(threads=1) as runner,
        tempfile.TemporaryDirectory() as scratch,
    ):
        tuning = one_task(
            task,
            spec=spec,
            store=store,
            builder=builder,
            runner=runner,
            sink=ListSink(),
            scratch=Path(scratch),
            seed=seed,
        )
        summary = tuning.run(Budget(trials=None, time_limit_s=seconds))
    return summary.trials / summary.seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="conv3x3")
    parser.add_argument("--seconds", type=float, default=60.0, help="of every search")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed")
    rates: dict[str, list[float]] = {"alone": [], "with_host": []}
    with on_cores(1), build_host(cores[-2]) as host:
        for seed in range(1, arguments.rounds + 1):
            for side, hosts in (("alone", []), ("with_host", [host])):
                rates[side].append(round(trials_per_s(arguments.task, arguments.seconds, hosts, seed=seed), 2))
                print(f"{side:10} seed {seed}: {rates[side][-1]:.1f} trials/s", flush=True)
    medians = {side: statistics.median(each) for side, each in rates.items()}
    result: dict[str, Any] = {
        "trials_per_s_ratio": round(medians["with_host"] / medians["alone"], 3),
        "task": arguments.task,
        **{f"{side}_trials_per_s": each for side, each in rates.items()},
        **provenance(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
