"""Search against search: this loop and TVM's own MetaSchedule on the same tasks, machine and wall time.

    python benchmarks/search.py --vs stock [--seconds 300] [--tasks conv3x3,conv1x1,matmul]

Three sides take turns on every task, each in a process of its own with ``--seconds`` of wall time, imports included:

* ``ours``: Tessera's loop, builders and runner.
* ``stock``: ``ms.tune_tir`` unmodified.
* ``repaired``: the same without its import trap (every build worker of every batch imports all of TVM's tensor
  intrinsics, 20 s of CPU; here only this machine's are registered). The honest peer.

Stock runs at the better of 16 and 64 trials per iteration, found by a probe on the first task; it has all threads,
which it would not take by itself. Finally the best schedule of each side is built anew and timed side by side by one
runner, so that ``final_latency_ratio`` compares timings of one minute, not of three. Ratios are ours ÷ theirs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("conv3x3", "conv1x1", "matmul")
SIDES = ("ours", "stock", "repaired")
FINAL_ROUNDS = 5


def workload(name: str) -> Any:
    """The task's module: NHWC convolutions with weights whose layout is free, and a square matmul, all fp32."""
    import tvm
    from tvm import te, topi

    if name == "conv3x3":
        data, weight = te.placeholder((1, 56, 56, 64), name="data"), te.placeholder((3, 3, 64, 64), name="weight")
        output = topi.nn.conv2d_nhwc(data, weight, 1, 1, 1)
    elif name == "conv1x1":
        data, weight = te.placeholder((1, 28, 28, 256), name="data"), te.placeholder((1, 1, 256, 128), name="weight")
        output = topi.nn.conv2d_nhwc(data, weight, 1, 0, 1)
    else:
        data, weight = te.placeholder((256, 256), name="data"), te.placeholder((256, 256), name="weight")
        output = topi.nn.matmul(data, weight)
    return tvm.IRModule({"main": te.create_prim_func([data, weight, output]).with_attr("layout_free_buffers", [1])})


def run_ours(task: str, seconds: float, directory: Path, *, seed: int) -> dict[str, Any]:
    started = time.monotonic()
    import tvm
    from tvm.s_tir.analysis import estimate_tir_flops
    from tvm.target import Target

    from schedules.space import design_spaces
    from tuner.cost_model_store import MemoryCostModelStore
    from tuner.events import ListSink
    from tuner.measure.builder import BuildPool
    from tuner.measure.runner import LocalRunner
    from tuner.records import MemoryRecordStore, Workload
    from tuner.request import Budget
    from tuner.search.loop import LoopConfig
    from tuner.targets import host_target, tvm_version
    from tuner.tuning import Tuning, TuningTask

    spec, mod = host_target(), workload(task)
    flops = float(estimate_tir_flops(mod))
    stored = Workload(key=task, tvm_version=tvm_version(), name=task, module_json=tvm.ir.save_json(mod), flops=flops)
    spaces = design_spaces(mod, Target(spec.tvm), cores=spec.threads, vector_bits=spec.vector_bits, seed=seed)
    with BuildPool(spec, workers=spec.threads) as builder, LocalRunner(threads=spec.threads) as runner:
        store = MemoryRecordStore()
        tuning = Tuning(
            tasks=[TuningTask(key=task, name=task, workload=stored, weight=1, spaces=spaces)],
            target=spec,
            store=store,
            models=MemoryCostModelStore(),
            builder=builder,
            runner=runner,
            sink=ListSink(),
            scratch=directory,
            seed=seed,
            config=LoopConfig(stop_gain=0.0),
        )
        tuning.run(Budget(trials=None, time_limit_s=max(1.0, seconds - (time.monotonic() - started))))
    measured = [record for record in store.own() if record.latency_us is not None]
    best = min(measured, key=lambda record: record.latency_us or math.inf)
    return {"trials": len(store.own()), "best_us": best.latency_us, "trace": best.trace}


def run_stock(task: str, seconds: float, directory: Path, *, seed: int, per_iteration: int, repaired: bool) -> None:
    """Runs until it is killed: `ms.tune_tir` knows no time limit. Its database is read by the parent."""
    from tvm.target import Target

    from tuner.targets import host_target

    target = Target(host_target().tvm)
    if repaired:
        _repair()
    from tvm.s_tir import meta_schedule as ms

    builder = ms.builder.LocalBuilder(initializer=_repair) if repaired else "local"
    ms.tune_tir(
        workload(task),
        target,
        str(directory),
        max_trials_global=1_000_000,
        num_trials_per_iter=per_iteration,
        builder=builder,
        seed=seed,
    )


def _repair() -> None:
    """In every process of the repaired side: register this machine's intrinsics without importing everybody else's."""
    from tvm.target import Target

    from schedules.intrinsics import register_intrinsics
    from tuner.targets import host_target

    register_intrinsics(Target(host_target().tvm))


def child(arguments: argparse.Namespace) -> int:
    directory = Path(arguments.directory)
    if arguments.side == "ours":
        answer = run_ours(arguments.task, arguments.seconds, directory, seed=arguments.seed)
        (directory / "answer.json").write_text(json.dumps(answer))
    else:
        run_stock(
            arguments.task,
            arguments.seconds,
            directory,
            seed=arguments.seed,
            per_iteration=arguments.per_iteration,
            repaired=arguments.side == "repaired",
        )
    return 0


def measure_side(side: str, task: str, seconds: float, *, seed: int, per_iteration: int) -> dict[str, Any]:
    """Give one side its wall time in a fresh process; returns trials, trials_per_s, best_us and the best trace."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TVM_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    with tempfile.TemporaryDirectory(prefix="search-") as name:
        directory = Path(name)
        command = [sys.executable, __file__, "--child", "--side", side, "--task", task, "--seconds", str(seconds)]
        command += ["--directory", name, "--seed", str(seed), "--per-iteration", str(per_iteration)]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
            try:
                process.wait(timeout=seconds + (60 if side == "ours" else 0))
            except subprocess.TimeoutExpired:
                _kill_tree(process.pid)
                process.wait()
        if side == "ours":
            answer: dict[str, Any] = json.loads((directory / "answer.json").read_text())
        else:
            answer = _read_database(directory)
    return {"task": task, "side": side, "seconds": seconds, "trials_per_s": answer["trials"] / seconds, **answer}


def _kill_tree(pid: int) -> None:
    import psutil

    parent = psutil.Process(pid)
    for process in [*parent.children(recursive=True), parent]:
        process.kill()


def _read_database(directory: Path) -> dict[str, Any]:
    """Every line of MetaSchedule's database is a trial, failures (run time 1e10) included."""
    records = []
    path = directory / "database_tuning_record.json"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue  # the line that was being written when the time was up
    timed = [(sum(map(float, seconds)) / len(seconds), trace) for _, (trace, seconds, *_) in records if seconds]
    best = min((pair for pair in timed if pair[0] < 1e9), key=lambda pair: pair[0], default=None)
    return {
        "trials": len(records),
        "best_us": best[0] * 1e6 if best else None,
        "trace": json.dumps(_without_postprocessing(*best[1])) if best else None,
    }


def _without_postprocessing(instructions: list[Any], decisions: list[Any]) -> list[Any]:
    """The sampled part of a stored trace: the postprocessors are applied anew when it is replayed."""
    kinds = [instruction[0] for instruction in instructions]
    end = kinds.index("EnterPostproc") if "EnterPostproc" in kinds else len(kinds)
    return [instructions[:end], [pair for pair in decisions if pair[0] < end]]


def rematch(task: str, rows: list[dict[str, Any]]) -> None:
    """Time the best schedule of every side again, interleaved; fills in ``final_us``."""
    import tvm

    from tuner.measure.builder import BuildPool
    from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource, Timed
    from tuner.measure.runner import LocalRunner
    from tuner.targets import host_target

    spec = host_target()
    source = TaskSource(key=task, module_json=tvm.ir.save_json(workload(task)))
    found = [row for row in rows if row["trace"]]
    with (
        tempfile.TemporaryDirectory(prefix="final-") as name,
        BuildPool(spec, workers=1) as builder,
        LocalRunner(threads=spec.threads) as runner,
    ):
        jobs = [
            BuildJob(task=source, trace_json=row["trace"], output=Path(name) / f"{row['side']}.so") for row in found
        ]
        answers = builder.build(jobs)
        built = [item for item in answers if isinstance(item, Built)]
        if len(built) < len(found):
            reasons = [item.message for item in answers if isinstance(item, Failure)]
            raise SystemExit(f"{task}: a best schedule could not be built again: {reasons}")
        samples: list[list[float]] = [[] for _ in built]
        for _ in range(FINAL_ROUNDS):
            for latencies, timed in zip(samples, runner.time(built, best_us=None), strict=True):
                if isinstance(timed, Timed):
                    latencies.append(timed.latency_us)
    for row, latencies in zip(found, samples, strict=True):
        row["final_us"] = sorted(latencies)[len(latencies) // 2]


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    tasks = arguments.tasks.split(",")
    per_iteration = {"ours": 16, "stock": 64, "repaired": 64}
    if arguments.probe_seconds:
        for side in ("stock", "repaired"):
            rates = {}
            for size in (16, 64):
                probe = measure_side(side, tasks[0], arguments.probe_seconds, seed=1, per_iteration=size)
                rates[size] = probe["trials_per_s"]
            per_iteration[side] = max(rates, key=lambda size: rates[size])
            print(f"probe {side}: {rates} trials/s -> {per_iteration[side]} per iteration", flush=True)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        of_task = []
        for side in SIDES:
            row = measure_side(side, task, arguments.seconds, seed=arguments.seed, per_iteration=per_iteration[side])
            of_task.append(row)
            print(
                f"{task:8} {side:9} {row['trials']:6d} trials {row['trials_per_s']:7.2f}/s  best {row['best_us']} µs",
                flush=True,
            )
        rematch(task, of_task)
        for row in of_task:
            print(f"{task:8} {row['side']:9} final {row.get('final_us')} µs", flush=True)
        rows += of_task
    return {
        "trials_per_s_ratio": _ratio(rows, "trials_per_s", "stock"),
        "repaired_trials_per_s_ratio": _ratio(rows, "trials_per_s", "repaired"),
        "final_latency_ratio": _ratio(rows, "final_us", "stock"),
        "repaired_final_latency_ratio": _ratio(rows, "final_us", "repaired"),
        "rows": [{key: value for key, value in row.items() if key != "trace"} for row in rows],
    }


def _ratio(rows: list[dict[str, Any]], key: str, peer: str) -> float | None:
    """Geometric mean over the tasks of ours ÷ the peer's; None where the peer has no successful trial anywhere."""
    ratios = []
    for task in {row["task"] for row in rows}:
        ours, theirs = (next(r.get(key) for r in rows if r["task"] == task and r["side"] == s) for s in ("ours", peer))
        if ours and theirs:
            ratios.append(ours / theirs)
    return round(geometric_mean(ratios), 3) if ratios else None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vs", choices=["stock"], default="stock", help="the peer")
    parser.add_argument("--seconds", type=float, default=300.0, help="wall time of each side on each task")
    parser.add_argument(
        "--probe-seconds", type=float, default=120.0, help="wall time of each probe (0: 64 per iteration)"
    )
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seed", type=int, default=1)
    for hidden in ("--side", "--task", "--directory"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--per-iteration", type=int, default=64, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    print(json.dumps(compare(arguments)))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
