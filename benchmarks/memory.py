"""Memory by sliding windows: peak activation bytes and latency of whole networks without and with them.

    python benchmarks/memory.py [--networks mobilenet_v2,resnet18,…] [--less 5,8] [--minutes 3] [--threads 2]
                                [--rows FILE]

Every network is tuned without windows first, then under memory limits, with the records of the jobs before: under a
fifth of what it took without windows (and other shares, as ``--less`` says) where that is feasible, and under the
smallest limit that is. In the end it is tuned without windows again, with everything that was learned: that is what the
others are compared with. Then the modules run in turns (`tuner.compare`), same inputs, same threads. All fp32; whole
jobs, as `tuner.tune` runs them.

``peak_bytes_before`` and ``peak_bytes_after`` are what the two builds allocate beside weights, input and output
(tensors and the workspaces of functions); ``…_with_io`` count input and output too. ``int8_bytes_after`` is the peak
with one byte an element, workspaces not counted, as papers on microcontrollers give it. ``latency_ratio`` is the
latency with windows ÷ without, ``mac_ratio`` the multiplications that are done ÷ those of the network. Peaks are
planned ones; ``measured_bytes_after`` is what the allocator saw in a run, the output included, beside
``planned_bytes_after``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bundles import unpack
from benchmarks.networks import MEMORY_NETWORKS, chosen_networks, write_network
from benchmarks.pinning import on_cores
from benchmarks.rows import Row, keep_row, provenance, read_rows
from tuner.compare import Contender, compare
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import MemoryLimitError, TesseraError
from tuner.events import Event, Log, StageStarted
from tuner.records import MemoryRecordStore
from tuner.request import Budget, TuneRequest
from tuner.targets import host_target
from tuner.tune import tune

_TIMING_BUDGET_S = 40.0
# Workspaces of functions are known only when they are scheduled: a limit at the very least would often be broken.
_ROOM = 1.05


class Progress:
    """Stages and log lines on standard error."""

    def __init__(self, name: str) -> None:
        self._name = name

    def emit(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, StageStarted):
                print(f"{self._name}: {event.stage}", file=sys.stderr, flush=True)
            elif isinstance(event, Log):
                print(f"{self._name}: {event.message}", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished job: its bundle and its manifest."""

    bundle: Path
    manifest: dict[str, Any]

    @property
    def memory(self) -> dict[str, Any]:
        memory: dict[str, Any] = self.manifest["memory"]
        return memory

    @property
    def peak_bytes(self) -> int:
        """Beside weights, input and output."""
        return int(self.memory["storage_bytes"]) + int(self.memory["workspace_bytes"])

    @property
    def alive_bytes(self) -> int:
        return max(int(step["bytes"]) for step in self.memory["timeline"])

    @property
    def io_bytes(self) -> int:
        return int(self.memory["input_bytes"]) + int(self.memory["output_bytes"])

    @property
    def mac_ratio(self) -> float:
        """Multiplications that are done ÷ those of the network."""
        parts = [(each["count"], part) for each in self.memory["windows"] for part in each["parts"]]
        again = sum(count * (part["computed_macs"] - part["macs"]) for count, part in parts)
        return 1 + again / (float(self.manifest["preflight"]["flops"]) / 2)


Tune = Callable[..., Built]


def measure_network(name: str, minutes: float, threads: int, less: Sequence[float]) -> list[Row]:
    """A row for every limit. Raises `TesseraError` where a job fails."""
    with tempfile.TemporaryDirectory(prefix="memory-") as directory, on_cores(threads):
        workspace = Path(directory)
        tuned = partial(
            _tuned,
            model=write_network(name, workspace),
            minutes=minutes,
            store=MemoryRecordStore(),
            models=MemoryCostModelStore(),
        )
        first = tuned(workspace / "first", windows=False)
        builds = {
            label: _limited(tuned, workspace / label, limit_bytes)
            for label, limit_bytes in _limits(tuned, first, less).items()
        }
        # Last, with the records of all others: its functions have been searched for longest.
        before = tuned(workspace / "before", windows=False)
        return [_row(name, label, threads, minutes, before, after, workspace) for label, after in builds.items()]


def _limited(tuned: Tune, work_dir: Path, limit_bytes: int) -> Built:
    """Under a limit, or under the least that turned out to be possible when everything was scheduled."""
    try:
        return tuned(work_dir, limit_bytes=limit_bytes)
    except MemoryLimitError as error:
        print(error.message, file=sys.stderr, flush=True)
        return tuned(work_dir.with_name(f"{work_dir.name}-again"), limit_bytes=_least_bytes(error))


def _least_bytes(error: MemoryLimitError) -> int:
    return int(_ROOM * int(str(error.details["least_bytes"])))


def _limits(tuned: Tune, before: Built, less: Sequence[float]) -> dict[str, int]:
    """Limits by what they are: so many times less than without windows where that is feasible, and the smallest."""
    try:
        tuned(before.bundle.parent / "least", limit_bytes=1)
    except MemoryLimitError as error:
        least_bytes = _least_bytes(error)
    limits = {f"{ratio:g}x less": int(before.peak_bytes / ratio + int(before.memory["output_bytes"])) for ratio in less}
    limits = {label: limit_bytes for label, limit_bytes in limits.items() if limit_bytes > least_bytes}
    return {**limits, "smallest": least_bytes}


def _tuned(
    work_dir: Path,
    *,
    model: Path,
    minutes: float,
    store: MemoryRecordStore,
    models: MemoryCostModelStore,
    limit_bytes: int | None = None,
    windows: bool = True,
) -> Built:
    work_dir.mkdir()
    request = TuneRequest(
        model_path=model,
        model_name=model.stem,
        target=host_target(),
        work_dir=work_dir,
        budget=Budget(trials=None, time_limit_s=60 * minutes),
        memory_limit_bytes=limit_bytes,
        windows=windows,
    )
    result = tune(request, store=store, models=models, sink=Progress(f"{model.stem} {work_dir.name}"))
    return Built(bundle=result.bundle, manifest=result.manifest)


def _row(name: str, label: str, threads: int, minutes: float, before: Built, after: Built, workspace: Path) -> Row:
    opened = {
        side: unpack(built.bundle, workspace / f"{label}-{side}")
        for side, built in (("before", before), ("after", after))
    }
    contenders = {side: Contender(path=bundle.module) for side, bundle in opened.items()}
    sample = opened["before"]
    latencies = compare(contenders, sample.inputs, sample.sample, threads=threads, time_budget_s=_TIMING_BUDGET_S)
    return {
        "network": name,
        "limit": label,
        "threads": threads,
        "minutes": minutes,
        **provenance(),
        "limit_bytes": after.memory["limit_bytes"],
        "peak_bytes_before": before.peak_bytes,
        "peak_bytes_after": after.peak_bytes,
        "peak_ratio": round(before.peak_bytes / after.peak_bytes, 3),
        "peak_bytes_before_with_io": before.peak_bytes + before.io_bytes,
        "peak_bytes_after_with_io": after.peak_bytes + after.io_bytes,
        "alive_bytes_before": before.alive_bytes,
        "alive_bytes_after": after.alive_bytes,
        "int8_bytes_after": (after.alive_bytes + 3) // 4,
        "planned_bytes_after": after.memory["planned_peak_bytes"],
        "measured_bytes_after": after.memory["measured_peak_bytes"],
        "latency_us_before": round(latencies["before"].median_us, 1),
        "latency_us_after": round(latencies["after"].median_us, 1),
        "latency_ratio": round(latencies["after"].median_us / latencies["before"].median_us, 4),
        "mac_ratio": round(after.mac_ratio, 4),
        "ways": {each["chain"]: each["way"] for each in after.memory["windows"]},
    }


def table(rows: list[Row]) -> str:
    lines = [
        f"{'network':22} {'limit':>9} {'thr':>3} {'before':>10} {'after':>10} {'ratio':>6} {'planned':>10} "
        f"{'measured':>10} {'latency':>8} {'MACs':>6}   (bytes beside weights, input and output)"
    ]
    lines += [
        f"{row['network']:22} {row['limit']:>9} {row['threads']:3d} {row['peak_bytes_before']:10d} "
        f"{row['peak_bytes_after']:10d} {row['peak_ratio']:5.2f}× {row['planned_bytes_after']:10d} "
        f"{row['measured_bytes_after'] or 0:10d} {row['latency_ratio']:7.3f}× {row['mac_ratio']:5.3f}×"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(MEMORY_NETWORKS), help="comma-separated")
    parser.add_argument("--less", default="5", help="limits: comma-separated, so many times less than without windows")
    parser.add_argument("--minutes", type=float, default=3.0, help="longest search of each job")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="keep finished rows in this file (JSON lines) and go on from it")
    arguments = parser.parse_args()
    less = [float(ratio) for ratio in arguments.less.split(",")]
    rows = read_rows(arguments.rows)
    complete = True
    for name in chosen_networks(arguments.networks, MEMORY_NETWORKS):
        if any(row["network"] == name and row["threads"] == arguments.threads for row in rows):
            continue
        try:
            for row in measure_network(name, arguments.minutes, arguments.threads, less):
                keep_row(arguments.rows, row)
                rows.append(row)
                print(table([row]), file=sys.stderr, flush=True)
        except TesseraError as error:
            print(f"{name}: {error.message}", file=sys.stderr, flush=True)
            complete = False
    print(table(rows))
    print(json.dumps({"rows": rows}))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
