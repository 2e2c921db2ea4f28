"""How well does the cost model rank schedules of workloads that it has never seen, and does TVM's own do better?

    tessera records export --target host > records.ndjson
    python benchmarks/cost_model.py records.ndjson [--per-workload 128] [--folds 4]

Every workload with enough records is held out once. Both models are trained on the same records of the others: ours on
features of the decisions, TVM's `XGBModel` on the features that it extracts from replayed schedules. The scores are
those of the cost model's versions (`tuner.cost_model.rank_quality`), but weighted by the workloads' best latency: a
large task that is ranked badly costs more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from schedules.space import initialized_postprocs, replay
from tuner.cost_model import MINIMUM_JUDGED, XGBCostModel, ranking_scores
from tuner.search.features import FEATURES_VERSION
from tuner.targets import host_target

Lines = list[dict[str, Any]]


def read_records(path: Path, per_workload: int) -> tuple[dict[str, Any], dict[str, Lines]]:
    """Workloads by key, and of each the successful records of this machine, at most so many, spread over latency."""
    fingerprint = host_target().fingerprint
    workloads: dict[str, Any] = {}
    records: dict[str, Lines] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if line["kind"] == "workload":
            workloads[line["key"]] = line
        elif (line.get("latency_us") and line["target_fingerprint"] == fingerprint and line.get("features")) and line[
            "features_version"
        ] == FEATURES_VERSION:
            records.setdefault(line["workload"], []).append(line)
    chosen = {}
    for key, lines in records.items():
        distinct = list({line["trace"]: line for line in sorted(lines, key=lambda line: -line["latency_us"])}.values())
        if len(distinct) >= MINIMUM_JUDGED:
            spread = np.linspace(0, len(distinct) - 1, min(per_workload, len(distinct))).round().astype(int)
            chosen[key] = [distinct[index] for index in spread]
    return workloads, chosen


class Ours:
    """`XGBCostModel` on the stored features."""

    def fit(self, records: dict[str, Lines]) -> None:
        rows = [line for lines in records.values() for line in lines]
        self._model = XGBCostModel(seed=0)
        self._model.fit(
            np.array([line["features"] for line in rows], dtype=np.float32),
            np.array([line["latency_us"] for line in rows]),
            np.array([line["workload"] for line in rows]),
        )

    def predict(self, key: str, lines: Lines) -> NDArray[np.float64]:
        return self._model.predict(np.array([line["features"] for line in lines], dtype=np.float32))


class Tvms:
    """TVM's `XGBModel` with its per-store features of the replayed schedules."""

    def __init__(self, workloads: dict[str, Any]) -> None:
        import tvm
        from tvm.s_tir import meta_schedule as ms
        from tvm.target import Target

        self._ms = ms
        self._target = Target(host_target().tvm)
        self._modules = {key: tvm.ir.load_json(line["module_json"]) for key, line in workloads.items()}
        self._candidates: dict[str, list[Any]] = {}

    def fit(self, records: dict[str, Lines]) -> None:
        ms = self._ms
        self._model = ms.cost_model.XGBModel(num_warmup_samples=0, adaptive_training=False, num_tuning_cores=1)
        for key, lines in records.items():
            results = [ms.runner.RunnerResult([line["latency_us"] * 1e-6], None) for line in lines]
            self._model.update(self._context(key), self._replayed(key, lines), results)

    def predict(self, key: str, lines: Lines) -> NDArray[np.float64]:
        return np.asarray(self._model.predict(self._context(key), self._replayed(key, lines)), dtype=np.float64)

    def _context(self, key: str) -> Any:
        ms = self._ms
        return ms.TuneContext(
            mod=self._modules[key],
            target=self._target,
            space_generator=ms.space_generator.PostOrderApply(sch_rules=[], postprocs=[], mutator_probs={}),
            search_strategy=ms.search_strategy.ReplayTrace(),
            num_threads=1,
        )

    def _replayed(self, key: str, lines: Lines) -> list[Any]:
        if key not in self._candidates:
            mod = self._modules[key]
            processors = initialized_postprocs(mod, self._target)
            schedules = [replay(mod, line["trace"], processors) for line in lines]
            self._candidates[key] = [
                self._ms.MeasureCandidate(sch, self._ms.arg_info.ArgInfo.from_entry_func(sch.mod, True))
                for sch in schedules
            ]
        return self._candidates[key]


def judge(model: Ours | Tvms, records: dict[str, Lines], folds: int) -> dict[str, float]:
    """The scores of a model, every workload held out once, weighted by its best latency; and its seconds."""
    started = time.perf_counter()
    names = np.random.default_rng(0).permutation(sorted(records))
    scores: list[dict[str, float]] = []
    weights: list[float] = []
    for held_out in np.array_split(names, min(folds, len(names))):
        model.fit({key: lines for key, lines in records.items() if key not in held_out})
        for key in held_out:
            latency_us = np.array([line["latency_us"] for line in records[key]])
            scores.append(ranking_scores(latency_us, model.predict(key, records[key])))
            weights.append(float(latency_us.min()))
    means = {name: float(np.average([score[name] for score in scores], weights=weights)) for name in scores[0]}
    return {**{name: round(value, 4) for name, value in means.items()}, "seconds": round(time.perf_counter() - started)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("records", type=Path, help="an export of records of this machine")
    parser.add_argument("--per-workload", type=int, default=128)
    parser.add_argument("--folds", type=int, default=4)
    arguments = parser.parse_args()
    workloads, records = read_records(arguments.records, arguments.per_workload)
    if len(records) < 2:
        print("Two workloads with enough records are needed: tune a model on this machine first.", file=sys.stderr)
        return 1
    counts = {"workloads": len(records), "records": sum(map(len, records.values()))}
    ours, tvms = judge(Ours(), records, arguments.folds), judge(Tvms(workloads), records, arguments.folds)
    for name, scores in (("ours", ours), ("tvm", tvms)):
        print(f"{name:5} {scores}")
    print(json.dumps({**ours, **{f"tvm_{name}": value for name, value in tvms.items()}, **counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
