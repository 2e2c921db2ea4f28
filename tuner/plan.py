"""What a network is built with: the way of every choice, and a schedule for every task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import tvm

from schedules.winograd import DIRECT, WINOGRAD
from tuner.records import Record, RecordStore
from tuner.search.alternatives import Totals, choose_ways, in_use, totals_us
from tuner.targets import TargetSpec
from tuner.tasks import ExtractedTask, task_functions, task_module, workload_key


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """``ways`` by choice (`tuner.search.alternatives`), with the latencies that they were compared by where both were
    measured; by task key ``winners``, measured and checked, and ``defaults``, traces for all tasks without one."""

    ways: Mapping[str, str]
    compared_us: Totals
    winners: Mapping[str, Record]
    defaults: Mapping[str, list[str]]

    @property
    def uses_winograd(self) -> bool:
        return WINOGRAD in self.ways.values()

    def directly(self, tasks: Sequence[ExtractedTask]) -> Plan:
        """The same with every convolution computed directly."""
        ways = dict.fromkeys(self.ways, DIRECT)
        needed = {task.tuning.key for task in needed_tasks(tasks, ways)}
        return replace(self, ways=ways, winners={key: self.winners[key] for key in needed & self.winners.keys()})

    def without_defaults(self) -> Plan:
        return replace(self, defaults={})

    def traces(self, fused: tvm.IRModule, tasks: Sequence[ExtractedTask]) -> dict[str, list[str]]:
        """The traces of every function of a fused network that is a task, best first."""
        known: dict[str, list[str]] = {}
        for task in tasks:
            key = task.tuning.key
            winner = self.winners.get(key)
            known[task.tuning.workload.key] = ([winner.trace] if winner else []) + self.defaults.get(key, [])
        functions = task_functions(fused)
        return {name: known.get(workload_key(task_module(body)), []) for name, body in functions.items()}

    def convolutions(self) -> dict[str, dict[str, object]]:
        """What the manifest keeps of the convolutions that were searched in both ways."""
        return {
            choice: {f"{way}_us": round(latency_us, 2) for way, latency_us in latencies.items()}
            | {"computed": self.ways[choice]}
            for choice, latencies in self.compared_us.items()
        }


def compare_ways(
    tasks: Sequence[ExtractedTask], best_us: Callable[[str], float | None]
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """The faster way of every choice, and the latencies of those whose ways were measured completely."""
    known = [
        (task.tuning, best_us(task.tuning.key) if task.tunable else None)
        for task in tasks
        if task.tuning.alternative is not None
    ]
    totals = totals_us((task, math.inf if latency_us is None else latency_us) for task, latency_us in known)
    compared = {choice: ways for choice, ways in totals.items() if len(ways) > 1 and math.isfinite(sum(ways.values()))}
    return choose_ways(known), compared


def without_unknown_ways(tasks: Sequence[ExtractedTask], store: RecordStore, spec: TargetSpec) -> list[ExtractedTask]:
    """The tasks without those of ways that no earlier job has measured: a small budget is not spent on them."""

    def is_known(task: ExtractedTask) -> bool:
        seen = store.seen(task.tuning.workload.key, target_fingerprint=spec.fingerprint)
        return any(record.latency_us is not None for record in seen)

    alternatives = [(task, task.tuning.alternative) for task in tasks if task.tuning.alternative is not None]
    unknown = {way for task, way in alternatives if way.way != DIRECT and not is_known(task)}
    return [task for task in tasks if task.tuning.alternative not in unknown]


def needed_tasks(tasks: Sequence[ExtractedTask], ways: Mapping[str, str]) -> list[ExtractedTask]:
    """The tasks of a network that takes these ways."""
    return [task for task in tasks if in_use(task.tuning, ways)]
