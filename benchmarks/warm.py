"""Leave one network out: how much sooner does a job get there when three other networks were tuned before?

    python benchmarks/warm.py [--models squeezenet,inception_v1,resnet18,mobilenet_v2] [--trials 600] [--rows FILE]

Each network in turn is left out. It is tuned alone, on a new data directory (cold), and on another one after the others
(warm), where it starts with their cost model and their records. All jobs run through the command line with as many
trials. A data directory in which some networks were tuned is copied for everything that begins with them, in the same
order: so four networks take 14 jobs instead of 20.

The *goal* is the latency that the cold job expected at its end (`estimated_us` of its last event: Σ weight × best over
the tasks; a task that was never measured counts with an assumed rate). ``wall_ratio`` is the time from the begin of the
warm job's search until it expected as little ÷ the same of the cold job, which may have got there before its last
trial; null when the warm job never did. Timings of single kernels are noisy: ``wall_ratio_within_2_percent`` is what
follows with a goal 2 % higher. In the end both modules and ONNX Runtime are timed in turns: ``warm_us`` should not be
above ``cold_us``. ``recalled_tasks`` says how many of the tasks had the very same workload in another network.
``machine_ratio`` is ONNX Runtime's latency as the warm job found it ÷ as the cold one did: far from 1, the machine
changed between them, and the row says little; so does a drift (slowest ÷ fastest timing of one kernel) far above 1.

With 600 trials and four networks that is about an hour on two cores; with ``--rows`` finished networks are kept in a
file, and a second call does the others.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bundles import unpack
from benchmarks.command_line import Tuned, TuningFailed, tune
from benchmarks.networks import chosen_networks, write_network
from benchmarks.rows import Row, measure_missing, provenance
from service.access.principal import DEFAULT_PROJECT
from service.database import Database
from service.queries.jobs import list_events
from service.schemas.events import EventSchema
from service.settings import Settings
from tuner.compare import Contender, Latency, compare

MODELS = ("squeezenet", "inception_v1", "resnet18", "mobilenet_v2")
_TOLERANCE = 1.02


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a job expected of the network, in µs, after so many seconds of its search; and what it recalled."""

    points: tuple[tuple[float, float], ...]
    recalled_tasks: int
    tasks: int

    @property
    def final_us(self) -> float:
        return self.points[-1][1]

    def seconds_to(self, goal_us: float) -> float | None:
        """When the job first expected at most that, None when it never did."""
        return next((seconds for seconds, estimated_us in self.points if estimated_us <= goal_us), None)


def read_course(data_dir: Path, job_id: str) -> Course:
    """The course of a finished job, from its stored events."""
    database = Database(Settings(data_dir=data_dir, database_url=None).sqlalchemy_url)
    try:
        events: list[EventSchema] = []
        while found := list_events(database.of_project(DEFAULT_PROJECT), job_id, after=events[-1].id if events else 0):
            events += found
    finally:
        database.close()
    return course_of(events)


def course_of(events: list[EventSchema]) -> Course:
    """The course told by a job's events: those of the search, which ends where the next stage begins."""
    began = next(index for index, event in enumerate(events) if event.kind == "stage" and event.data["stage"] == "tune")
    ended = next(index for index, event in enumerate(events) if index > began and event.kind == "stage")
    points = [
        ((event.created_at - events[began].created_at).total_seconds(), float(event.data["estimated_us"]))
        for event in events[began:ended]
        if event.kind in ("progress", "trial") and event.data["estimated_us"] is not None
    ]
    return Course(
        points=tuple(points),
        recalled_tasks=sum(event.kind == "recall" for event in events),
        tasks=sum(len(event.data["tasks"]) for event in events if event.kind == "tasks"),
    )


class Histories:
    """Data directories in which networks were tuned one after the other, below a workspace. What begins alike is tuned
    once."""

    def __init__(self, workspace: Path, trials: int) -> None:
        self._workspace = workspace
        self._trials = trials
        self._tuned: dict[tuple[str, ...], tuple[Path, Tuned]] = {}

    def after(self, networks: tuple[str, ...]) -> tuple[Path, Tuned]:
        """A data directory with the jobs of these networks in this order, and the last of them. Raises
        `TuningFailed`."""
        if networks not in self._tuned:
            folder = self._workspace / "-".join(networks)
            if networks[:-1]:
                shutil.copytree(self.after(networks[:-1])[0], folder / "data")
            tuned = tune(self.model(networks[-1]), folder, folder / "data", "--trials", str(self._trials))
            self._tuned[networks] = folder / "data", tuned
        return self._tuned[networks]

    def model(self, name: str) -> Path:
        """The network's file."""
        path = self._workspace / f"{name}.onnx"
        return path if path.exists() else write_network(name, self._workspace)


def others_first(name: str, networks: Sequence[str]) -> tuple[str, ...]:
    """The other networks, in an order that as many as possible of those left out share from the begin: of two halves,
    the one without the name comes first."""
    if len(networks) == 1:
        return ()
    halves = networks[: len(networks) // 2], networks[len(networks) // 2 :]
    mine, theirs = halves if name in halves[0] else reversed(halves)
    return (*theirs, *others_first(name, mine))


def measure_network(name: str, others: tuple[str, ...], histories: Histories) -> Row:
    """One row: a network left out. Raises `TuningFailed`."""
    cold_data, cold = histories.after((name,))
    warm_data, warm = histories.after((*others, name))
    with tempfile.TemporaryDirectory(prefix="warm-") as directory:
        latencies = time_side_by_side(histories.model(name), {"cold": cold, "warm": warm}, Path(directory))
    return {
        "network": name,
        "after": others,
        "trials": cold.manifest["search"]["trials"],
        **provenance(),
        **figures(read_course(cold_data, cold.job_id), read_course(warm_data, warm.job_id)),
        "machine_ratio": round(_onnxruntime_us(warm) / _onnxruntime_us(cold), 3),
        "cold_drift": cold.manifest["search"].get("drift"),
        "warm_drift": warm.manifest["search"].get("drift"),
        **{f"{side}_us": round(latency.median_us, 1) for side, latency in latencies.items()},
        **{f"{side}_spread_us": round(latency.spread_us, 1) for side, latency in latencies.items()},
    }


def _onnxruntime_us(tuned: Tuned) -> float:
    return float(tuned.manifest["onnxruntime"]["median_us"])


def figures(cold: Course, warm: Course) -> Row:
    """The ratios, and what they come from."""
    goal_us = cold.final_us
    return {
        "goal_us": round(goal_us, 1),
        "cold_seconds": cold.seconds_to(goal_us),
        "cold_search_seconds": cold.points[-1][0],
        "warm_seconds": warm.seconds_to(goal_us),
        "warm_search_seconds": warm.points[-1][0],
        "warm_start_us": round(warm.points[0][1], 1),
        "warm_final_us": round(warm.final_us, 1),
        "wall_ratio": wall_ratio(cold, warm, goal_us),
        "wall_ratio_within_2_percent": wall_ratio(cold, warm, _TOLERANCE * goal_us),
        "recalled_tasks": warm.recalled_tasks,
        "tasks": warm.tasks,
    }


def wall_ratio(cold: Course, warm: Course, goal_us: float) -> float | None:
    """The warm job's seconds to a latency ÷ the cold one's, None when the warm one never got there."""
    cold_s, warm_s = cold.seconds_to(goal_us), warm.seconds_to(goal_us)
    return None if warm_s is None or not cold_s else round(warm_s / cold_s, 4)


def time_side_by_side(model: Path, sides: dict[str, Tuned], workspace: Path) -> dict[str, Latency]:
    """The modules of both bundles and ONNX Runtime in turns."""
    bundles = {side: unpack(tuned.bundle, workspace / f"{side}-bundle") for side, tuned in sides.items()}
    contenders = {side: Contender(path=bundle.module) for side, bundle in bundles.items()}
    contenders["onnxruntime"] = Contender(path=model, kind="onnxruntime")
    some = bundles["warm"]
    return compare(contenders, some.inputs, some.sample, threads=sides["warm"].manifest["threads"])


def summary(rows: list[Row]) -> Row:
    """The median of the rows' ratios, a network that never got there being infinitely late."""
    ratios = [math.inf if row["wall_ratio"] is None else row["wall_ratio"] for row in rows]
    middle = statistics.median(ratios) if ratios else math.inf
    return {"wall_ratio": round(middle, 4) if math.isfinite(middle) else None, "rows": rows}


def table(rows: list[Row]) -> str:
    lines = [
        f"{'left out':20} {'recalled':>8} {'goal':>9} {'cold':>7} {'warm':>7} {'ratio':>6} {'at +2 %':>7} "
        f"{'cold':>9} {'warm':>9} {'ORT':>9}   (goal expected, last three timed side by side, in ms)"
    ]
    for row in rows:
        lines.append(
            f"{row['network']:20} {row['recalled_tasks']:4d}/{row['tasks']:3d} {row['goal_us'] / 1e3:9.2f} "
            f"{_shown(row['cold_seconds'], '{:.0f} s'):>7} {_shown(row['warm_seconds'], '{:.0f} s'):>7} "
            f"{_shown(row['wall_ratio'], '{:.2f}'):>6} {_shown(row['wall_ratio_within_2_percent'], '{:.2f}'):>7} "
            f"{row['cold_us'] / 1e3:9.2f} {row['warm_us'] / 1e3:9.2f} {row['onnxruntime_us'] / 1e3:9.2f}"
        )
    return "\n".join(lines)


def _shown(value: float | None, form: str) -> str:
    return "never" if value is None else form.format(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated; each is left out once")
    parser.add_argument("--trials", type=int, default=600, help="of every job")
    parser.add_argument("--rows", type=Path, help="keep finished networks in this file (JSON lines) and go on from it")
    arguments = parser.parse_args()
    models = chosen_networks(arguments.models)
    if len(models) < 2:
        parser.error("--models: at least two networks are needed")
    with tempfile.TemporaryDirectory(prefix="warm-") as workspace:
        histories = Histories(Path(workspace), arguments.trials)
        rows, complete = measure_missing(
            arguments.rows,
            {name: partial(measure_network, name, others_first(name, models), histories) for name in models},
            key_of=lambda row: row["network"],
            failures=(TuningFailed,),
            show=lambda row: table([row]).splitlines()[-1],
        )
    print(table(rows))
    print(json.dumps(summary(rows)))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
