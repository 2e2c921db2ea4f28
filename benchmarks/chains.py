"""Single chains by sliding windows against the same operators one after the other, each tuned for the same time.

    python benchmarks/chains.py [--chains residual_112,depthwise_540p,…] [--threads 1,2] [--seconds 60] [--rows FILE]

An inverted residual of MobileNetV2 at 112×112 (1×1 to 96 channels, depthwise 3×3 with stride 2, 1×1 to 24), and two
depthwise 3×3 convolutions of 16 channels one behind the other at 960×540 and 1920×1080; NHWC, fp32. Every way of the
chain is searched by itself, as a job searches it (`tuner.ways`, `tuner.tuning`); then the best schedules of all ways
are built anew and timed in turns, weights out of the cache. ``latency_ratio`` is the fastest way by windows ÷ the
operators one after the other; ``tensor_bytes`` is the tensors between the operators, ``ring_bytes`` what is kept of
them instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import onnx

from benchmarks.pinning import on_cores
from benchmarks.rows import Row, measure_missing, provenance
from schedules.graph.pipeline import prepare
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import TesseraError
from tuner.events import ListSink
from tuner.frontend.convert import import_model
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import BuildJob, Built, Timed
from tuner.measure.runner import LocalRunner
from tuner.records import MemoryRecordStore
from tuner.request import Budget
from tuner.search.alternatives import USUAL_WAY, calls
from tuner.targets import host_target
from tuner.tasks import extract_tasks
from tuner.tuning import Tuning, TuningTask
from tuner.ways import Ways

CHAINS = ("residual_112", "depthwise_540p", "depthwise_1080p")
_ROUNDS = 7


def network(name: str) -> onnx.ModelProto:
    """The chain behind a convolution that something else reads too, so that it begins there and in channels-last."""
    builder = importlib.import_module("network_builder").NetworkBuilder(seed=1)
    start = builder.convolution("start", "x", inputs=3, outputs=16, kernel=1)
    builder.node("Sigmoid", [start], "side")
    if name == "residual_112":
        rows, columns, last = 112, 112, [1, 24, 56, 56]
        wide = builder.convolution("expand", start, inputs=16, outputs=96, kernel=1)
        wide = builder.node("Relu", [wide], "expand.relu")
        deep = builder.convolution("depthwise", wide, inputs=96, outputs=96, kernel=3, stride=2, groups=96)
        deep = builder.node("Relu", [deep], "depthwise.relu")
        builder.convolution("y", deep, inputs=96, outputs=24, kernel=1, gain=1.0)
    else:
        rows, columns = (540, 960) if name == "depthwise_540p" else (1080, 1920)
        last = [1, 16, rows, columns]
        flow = builder.convolution("first", start, inputs=16, outputs=16, kernel=3, groups=16)
        flow = builder.node("Relu", [flow], "first.relu")
        flow = builder.convolution("second", flow, inputs=16, outputs=16, kernel=3, groups=16)
        builder.node("Relu", [flow], "y")
    outputs = {"y": last, "side": [1, 16, rows, columns]}
    model: onnx.ModelProto = builder.model(name, inputs={"x": [1, 3, rows, columns]}, outputs=outputs)
    return model


def measure_chain(name: str, threads: int, seconds: float) -> Row:
    """One row. Raises `TesseraError`."""
    with tempfile.TemporaryDirectory(prefix="chains-") as directory, on_cores(threads):
        path = Path(directory) / "chain.onnx"
        onnx.save(network(name), path)
        spec = host_target()
        ways = Ways(prepare(import_model(path, {}).module), spec)
        (choice,) = ways.choices
        tasks = [task.tuning for task in extract_tasks(ways, spec, seed=1) if task.tunable]
        own = {way: _own(tasks, {choice: way}) for way in ways.choices[choice]}
        with BuildPool(spec, workers=threads) as builder, LocalRunner(threads=threads) as runner:
            store = MemoryRecordStore()
            for searched in own.values():
                Tuning(
                    tasks=searched,
                    target=spec,
                    store=store,
                    models=MemoryCostModelStore(),
                    builder=builder,
                    runner=runner,
                    sink=ListSink(),
                    scratch=Path(directory),
                    seed=1,
                ).run(Budget(trials=None, time_limit_s=seconds))
            latency_us = _timed(tasks, store, builder, runner, Path(directory))
    total_us = {way: sum(calls(task, {choice: way}) * latency_us[task.key] for task in own[way]) for way in own}
    rolled = min((way for way in own if way != USUAL_WAY), key=lambda way: total_us[way])
    [described] = ways.windows({choice: rolled})
    parts: Any = described["parts"]
    [part] = parts
    between = [each for each in part["operators"] if each["ring_bytes"] and each["operator"] != "copy"]
    return {
        "chain": name,
        "threads": threads,
        "seconds": seconds,
        **provenance(),
        "latency_ratio": round(total_us[rolled] / total_us[USUAL_WAY], 4),
        "way": rolled,
        "latency_us": {way: round(us, 1) for way, us in total_us.items()},
        "tensor_bytes": sum(4 * each["output"][0] * each["output"][1] * each["output"][2] for each in between),
        "ring_bytes": sum(each["ring_bytes"] or 0 for each in part["operators"]),
        "mac_ratio": round(part["computed_macs"] / part["macs"], 4),
    }


def _own(tasks: Sequence[TuningTask], ways: Mapping[str, str]) -> list[TuningTask]:
    """The tasks that this way needs and others may not; the output's transposition is the same behind all of them."""
    return [
        task
        for task in tasks
        if calls(task, ways)
        and all(use.alternative is not None for use in task.uses)
        and not task.name.removeprefix("fused_").startswith("transpose")
    ]


def _timed(
    tasks: Sequence[TuningTask], store: MemoryRecordStore, builder: BuildPool, runner: LocalRunner, folder: Path
) -> dict[str, float]:
    """The best schedule of every task built with every pass of LLVM and timed in turns, by task key."""
    jobs, keys = list[BuildJob](), list[str]()
    for task in tasks:
        seen = store.seen(task.workload.key, target_fingerprint=host_target().fingerprint)
        measured = [(record.latency_us, record.trace) for record in seen if record.latency_us is not None]
        if measured:
            output = folder / f"final-{len(jobs)}.so"
            trace = min(measured)[1]
            jobs.append(BuildJob(task=task.source, trace_json=trace, output=output, repacked_weights=True))
            keys.append(task.key)
    pairs = [(key, item) for key, item in zip(keys, builder.build(jobs), strict=True) if isinstance(item, Built)]
    rounds = [runner.time([item for _, item in pairs], best_us=None) for _ in range(_ROUNDS)]
    return {
        key: statistics.median(each.latency_us for each in timings if isinstance(each, Timed))
        for (key, _), timings in zip(pairs, zip(*rounds, strict=True), strict=True)
    }


def table(rows: list[Row]) -> str:
    lines = [
        f"{'chain':18} {'thr':>3} {'one by one':>11} {'windows':>9} {'ratio':>7} {'tensors':>11} {'rings':>9}   (µs)"
    ]
    lines += [
        f"{row['chain']:18} {row['threads']:3d} {row['latency_us'][USUAL_WAY]:11.1f} "
        f"{row['latency_us'][row['way']]:9.1f} {row['latency_ratio']:6.3f}× {row['tensor_bytes']:11d} "
        f"{row['ring_bytes']:9d}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chains", default=",".join(CHAINS), help=f"comma-separated, of {', '.join(CHAINS)}")
    parser.add_argument("--threads", default="1,2", help="comma-separated numbers of threads")
    parser.add_argument("--seconds", type=float, default=60.0, help="search of each way")
    parser.add_argument("--rows", type=Path, help="keep finished rows in this file (JSON lines) and go on from it")
    arguments = parser.parse_args()
    names = arguments.chains.split(",")
    if unknown := sorted(set(names) - set(CHAINS)):
        parser.error(f"unknown chains {', '.join(unknown)}; known: {', '.join(CHAINS)}")
    wanted = {
        (name, threads): partial(measure_chain, name, threads, arguments.seconds)
        for name in names
        for threads in map(int, arguments.threads.split(","))
    }
    rows, complete = measure_missing(
        arguments.rows,
        wanted,
        key_of=lambda row: (row["chain"], row["threads"]),
        failures=(TesseraError,),
        show=lambda row: table([row]).splitlines()[-1],
    )
    print(table(rows))
    print(json.dumps({"rows": rows}))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
