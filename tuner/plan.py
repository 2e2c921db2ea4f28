"""What a network is built with: the way of every choice, and a schedule for every task."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import tvm

from tuner.records import Record, RecordStore
from tuner.search.alternatives import USUAL_WAY, Alternative, Totals, calls
from tuner.targets import TargetSpec
from tuner.tasks import ExtractedTask, argument_bytes, task_functions, task_module, workload_key


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """``ways`` by choice (`tuner.search.alternatives`), with the latencies that they were compared by where both were
    measured; by task key ``winners``, measured and checked, and ``defaults``, traces for all tasks without one."""

    ways: Mapping[str, str]
    compared_us: Totals
    winners: Mapping[str, Record]
    defaults: Mapping[str, list[str]]

    def usual(self, tasks: Sequence[ExtractedTask], *, instead_of: Callable[[str], bool]) -> Plan:
        """The same with the usual way instead of these ways."""
        ways = {choice: USUAL_WAY if instead_of(way) else way for choice, way in self.ways.items()}
        needed = {task.tuning.key for task in needed_tasks(tasks, ways)}
        return replace(self, ways=ways, winners={key: self.winners[key] for key in needed & self.winners.keys()})

    def in_order(self, traces: Mapping[str, list[str]]) -> Plan:
        """The same with these traces of each task, best first; a winner that is not the first of them is none."""
        winners = {key: record for key, record in self.winners.items() if traces.get(key, [""])[0] == record.trace}
        return replace(self, winners=winners, defaults=traces)

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

    def work(
        self, fused: tvm.IRModule, built: tvm.IRModule, tasks: Sequence[ExtractedTask]
    ) -> dict[str, dict[str, float]]:
        """The work of one call of every function of a network that was built from a fused one: ``flops``, and the
        ``bytes`` of its arguments. What has its weights reordered has TVM's ``_prepacked`` in its name there."""
        flops = {task.tuning.workload.key: task.tuning.workload.flops for task in tasks}
        work = {
            name: {"flops": flops.get(workload_key(alone), 0.0), "bytes": argument_bytes(alone)}
            for name, alone in ((name, task_module(body)) for name, body in task_functions(fused).items())
        }
        names = [variable.name_hint for variable in built.functions]
        return {name: work[plain] for name in names if (plain := name.partition("_prepacked")[0]) in work}

    def chosen_by(self, tasks: Sequence[ExtractedTask], *, guessed_by: str) -> dict[str, str]:
        """By what the schedule of every function was chosen: its ``records``, a guess (``cost_model`` or ``analytic``),
        or nothing (``none``: functions without a design space are left as they come)."""
        return {
            task.tuning.name: "records"
            if task.tuning.key in self.winners
            else guessed_by
            if self.defaults.get(task.tuning.key)
            else "none"
            for task in needed_tasks(tasks, self.ways)
        }

    def choices(self) -> dict[str, dict[str, object]]:
        """What the manifest keeps of the parts that were searched in several ways: which one is used, and how long each
        of them takes (Σ calls × latency of its tasks)."""
        return {
            choice: {"way": self.ways[choice], "us": {way: round(us, 2) for way, us in latencies.items()}}
            for choice, latencies in self.compared_us.items()
        }


def measured_completely(totals: Totals) -> dict[str, dict[str, float]]:
    """The choices of which several ways were measured, without what was not."""
    measured = {choice: {way: us for way, us in ways.items() if math.isfinite(us)} for choice, ways in totals.items()}
    return {choice: ways for choice, ways in measured.items() if len(ways) > 1}


def without_unknown_ways(
    tasks: Sequence[ExtractedTask], store: RecordStore, spec: TargetSpec, *, needed: Collection[Alternative] = ()
) -> list[ExtractedTask]:
    """The tasks without those that only ways need that no earlier job has measured: a small budget is not spent on
    them. Where a part cannot be computed in the usual way, all of its ways stay; and those that are ``needed``."""

    def is_known(task: ExtractedTask) -> bool:
        seen = store.seen(task.tuning.workload.key, target_fingerprint=spec.fingerprint)
        return any(record.latency_us is not None for record in seen)

    alternatives = [
        (task, use.alternative) for task in tasks for use in task.tuning.uses if use.alternative is not None
    ]
    usual = {alternative.choice for _, alternative in alternatives if alternative.way == USUAL_WAY}
    unknown = {
        alternative
        for task, alternative in alternatives
        if alternative.way != USUAL_WAY and alternative.choice in usual and not is_known(task)
    } - set(needed)
    return without(tasks, lambda alternative: alternative in unknown)


def without(tasks: Sequence[ExtractedTask], is_dropped: Callable[[Alternative], bool]) -> list[ExtractedTask]:
    """The tasks of a network that does not take some alternatives."""
    return [
        replace(task, tuning=replace(task.tuning, uses=uses))
        for task in tasks
        if (
            uses := tuple(use for use in task.tuning.uses if use.alternative is None or not is_dropped(use.alternative))
        )
    ]


def needed_tasks(tasks: Sequence[ExtractedTask], ways: Mapping[str, str]) -> list[ExtractedTask]:
    """The tasks of a network that takes these ways."""
    return [task for task in tasks if calls(task.tuning, ways)]
