"""Whole networks, tuned through the command line, against ONNX Runtime and OpenVINO.

    python benchmarks/models.py --vs onnxruntime [--models squeezenet,resnet50] [--threads 2,1] [--minutes 30]
                                [--trials N] [--rows FILE] [--data-dir DIR]

Eight networks with random weights: five architectures of the ``onnx`` package and the three that `examples/` builds.
Each is tuned with ``tessera tune --time``, on a data directory of its own (cold) unless one is given, with two threads
and with one; the whole job is kept on as many cores, from which the host target takes its threads. Then the tuned
module, ONNX Runtime and OpenVINO are timed in turns (`tuner.compare`): same inputs, same threads, same cores, one
process each, up to 15 rounds; medians, and median absolute deviations as spreads. The untuned build's latency is from
the job's own comparison, since it can take seconds a run. OpenVINO is no dependency of Tessera: ``pip install
openvino`` for this benchmark, or its column stays empty (null).

``percent_of_peak`` is the preflight's arithmetic ÷ the tuned latency ÷ what as many cores could do in fp32, by
`benchmarks/peak.py` measured right after the timing. It may pass 100 where Winograd's filtering saves arithmetic.

Ratios are theirs ÷ ours: above 1, ours is faster. With 30 minutes a row all rows take eight hours and a half; with
``--rows`` finished rows are kept in a file, and a second call does the others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import openvino_contender
from benchmarks.bundles import Unpacked, unpack
from benchmarks.command_line import Tuned, TuningFailed, tune
from benchmarks.networks import NETWORKS, chosen_networks, write_network
from benchmarks.peak import measure_peak_gflops
from benchmarks.pinning import on_cores
from benchmarks.rows import Row, measure_missing, provenance
from tuner.compare import Contender, Latency, compare
from tuner.errors import WorkerError
from tuner.network_process import NetworkProcess

_TIMING_BUDGET_S = 60.0
# fp32 engines agree within 1e-5 on these networks; bf16 is off by 1e-2.
_SAME_COMPUTATION = 1e-3


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long each network is tuned, at each number of threads."""

    minutes: float
    trials: int | None

    def options(self) -> list[str]:
        trials = [] if self.trials is None else ["--trials", str(self.trials)]
        return ["--time", f"{60 * self.minutes:g}s", *trials]


def measure_network(name: str, threads: int, budget: Budget, data_dir: Path | None) -> Row:
    """One row: a network tuned and timed at a number of threads. Raises `TuningFailed`."""
    with tempfile.TemporaryDirectory(prefix="models-") as directory, on_cores(threads):
        workspace = Path(directory)
        model = write_network(name, workspace)
        tuned = tune(model, workspace, data_dir or workspace / "data", *budget.options())
        latencies, problem = time_side_by_side(model, tuned, threads, workspace)
        peak_gflops = measure_peak_gflops()
    gflop = tuned.manifest["preflight"]["flops"] / 1e9
    return {
        "network": name,
        "threads": threads,
        **provenance(),
        "minutes": budget.minutes,
        **job_figures(tuned),
        **{f"{engine}_us": round(latency.median_us, 1) for engine, latency in latencies.items()},
        **{f"{engine}_spread_us": round(latency.spread_us, 1) for engine, latency in latencies.items()},
        **({} if "openvino" in latencies else {"openvino_us": None, "openvino_spread_us": None}),
        "openvino_problem": problem,
        "versions": engine_versions(),
        "gflop": round(gflop, 4),
        "peak_gflops_per_core": round(peak_gflops, 1),
        **ratios({engine: latency.median_us for engine, latency in latencies.items()}),
        "percent_of_peak": round(100 * gflop / (latencies["tuned"].median_us * 1e-6) / (threads * peak_gflops), 1),
    }


def job_figures(tuned: Tuned) -> Row:
    """What the bundle's manifest says of the search and of the untuned build."""
    manifest = tuned.manifest
    search, baseline = manifest["search"], manifest["baseline"]
    return {
        "outcome": manifest["outcome"],
        "shipped": manifest["shipped"],
        "trials": search["trials"],
        "search_seconds": search["seconds"],
        "job_seconds": search["job_seconds"],
        "ended_by": search["ended_by"],
        "drift": search.get("drift"),
        "tasks": search["tasks"],
        "tasks_tuned": search["tasks_tuned"],
        "max_rel_error": manifest["numerics"]["max_rel_error"],
        "untuned_us": round(baseline["median_us"], 1),
        "untuned_spread_us": round(baseline["spread_us"], 1),
    }


def time_side_by_side(
    model: Path, tuned: Tuned, threads: int, workspace: Path
) -> tuple[dict[str, Latency], str | None]:
    """The bundle's module and the peers in turns, by engine, and why OpenVINO is missing (None when it is not)."""
    bundle = unpack(tuned.bundle, workspace / "bundle")
    contenders = {
        "tuned": Contender(path=bundle.module),
        "onnxruntime": Contender(path=model, kind="onnxruntime"),
    }
    problem = openvino_problem(model, bundle, threads=threads)
    if problem is None:
        contenders["openvino"] = Contender(path=model, kind="onnxruntime", program=openvino_contender.PROGRAM)
    latencies = compare(contenders, bundle.inputs, bundle.sample, threads=threads, time_budget_s=_TIMING_BUDGET_S)
    return latencies, problem


def openvino_problem(model: Path, bundle: Unpacked, *, threads: int) -> str | None:
    """Why OpenVINO cannot be timed on a network; None when it runs and computes the same in fp32."""
    if not openvino_contender.is_installed():
        return "not installed: pip install openvino"
    try:
        with NetworkProcess(
            model, kind="onnxruntime", threads=threads, name="OpenVINO", program=openvino_contender.PROGRAM
        ) as network:
            [outputs] = network.run([bundle.sample], list(bundle.sample), list(bundle.expected))
    except WorkerError as error:
        return error.message
    for name, reference in bundle.expected.items():
        error_share = float(np.abs(outputs[name] - reference).max() / np.abs(reference).max())
        if not error_share <= _SAME_COMPUTATION:
            return f"{name} is off by {error_share:.1e} of ONNX Runtime's largest value"
    return None


def engine_versions() -> Row:
    names = ["apache-tvm", "onnxruntime", *(["openvino"] if openvino_contender.is_installed() else [])]
    return {name: version(name) for name in names}


def ratios(median_us: dict[str, float]) -> Row:
    """``vs_onnxruntime`` and ``vs_best_peer``: the peer's latency ÷ the tuned module's."""
    peers = [latency for engine, latency in median_us.items() if engine != "tuned"]
    return {
        "vs_onnxruntime": round(median_us["onnxruntime"] / median_us["tuned"], 4),
        "vs_best_peer": round(min(peers) / median_us["tuned"], 4),
    }


def summary(rows: list[Row]) -> Row:
    """Over all rows: geometric means and the worst ratio; None without rows."""
    ours = [row["vs_onnxruntime"] for row in rows]
    best = [row["vs_best_peer"] for row in rows]
    return {
        "geomean_vs_onnxruntime": round(geometric_mean(ours), 4) if ours else None,
        "geomean_vs_best_peer": round(geometric_mean(best), 4) if best else None,
        "min_vs_onnxruntime": min(ours, default=None),
        "rows": rows,
    }


def table(rows: list[Row]) -> str:
    lines = [
        f"{'network':20} {'thr':>3} {'untuned':>9} {'tuned':>15} {'ONNX Runtime':>15} {'OpenVINO':>15} "
        f"{'vs ORT':>6} {'best':>6} {'peak':>6} {'trials':>6} {'search':>7}   (ms ± spread; above 1: ours is faster)"
    ]
    for row in rows:
        latencies = " ".join(f"{_ms(row, engine):>15}" for engine in ("tuned", "onnxruntime", "openvino"))
        lines.append(
            f"{row['network']:20} {row['threads']:3d} {row['untuned_us'] / 1e3:9.1f} {latencies} "
            f"{row['vs_onnxruntime']:6.2f} {row['vs_best_peer']:6.2f} {row['percent_of_peak']:5.1f}% "
            f"{row['trials']:6d} {row['search_seconds']:6.0f}s"
        )
    return "\n".join(lines)


def _ms(row: Row, engine: str) -> str:
    if row[f"{engine}_us"] is None:
        return "–"
    return f"{row[f'{engine}_us'] / 1e3:.2f} ± {row[f'{engine}_spread_us'] / 1e3:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vs", choices=["onnxruntime"], default="onnxruntime", help="the peer of the first ratio")
    parser.add_argument("--models", default=",".join(NETWORKS), help="comma-separated")
    parser.add_argument("--threads", default="2,1", help="comma-separated numbers of threads")
    parser.add_argument("--minutes", type=float, default=30.0, help="longest search of a network at a thread count")
    parser.add_argument("--trials", type=int, help="most trials of each search")
    parser.add_argument("--rows", type=Path, help="keep finished rows in this file (JSON lines) and go on from it")
    parser.add_argument("--data-dir", type=Path, help="one data directory for all jobs instead of a new one for each")
    arguments = parser.parse_args()
    budget = Budget(minutes=arguments.minutes, trials=arguments.trials)
    wanted = {
        (name, threads): partial(measure_network, name, threads, budget, arguments.data_dir)
        for name in chosen_networks(arguments.models)
        for threads in map(int, arguments.threads.split(","))
    }
    rows, complete = measure_missing(
        arguments.rows,
        wanted,
        key_of=lambda row: (row["network"], row["threads"]),
        failures=(TuningFailed, WorkerError),
        show=lambda row: table([row]).splitlines()[-1],
    )
    print(table(rows))
    print(json.dumps(summary(rows)))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
