"""What people look at of a job's schedules: of every task its function before and after, and its loops."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm.s_tir import SBlock, SBlockRealize
from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock
from tvm.target import Target
from tvm.tirx import PrimFunc, SeqStmt

from schedules.blocks import blocks_of
from schedules.space import ReplayError, initialized_postprocs, replay
from tuner.loop_nest import loop_nest, main_script, parameters
from tuner.plan import Plan, needed_tasks
from tuner.targets import TargetSpec
from tuner.tasks import ExtractedTask

_REORDERS = "meta_schedule.layout_rewrite_preproc"
_LONGEST_SCRIPT = 64 * 1024
_MOST_LINES = 500
_MOST_BYTES = 8 * 1024**2
"""Of all tasks together: what a page reads at a time."""


def shown_schedules(
    tasks: Sequence[ExtractedTask],
    plan: Plan,
    *,
    target: TargetSpec,
    guessed_by: str,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Every task that a network with this plan needs, as plain values, in the order of the tasks::

        key, name
        chosen_by      records, cost_model, analytic or none (`Plan.chosen_by`)
        knobs          of the record, {} where it was chosen by something else
        before, after  {"script": TVMScript, "cut": whether its end is missing}; ``after`` None without a schedule
        parameters     what the function is given (`tuner.loop_nest.parameters`)
        nest           its loops (`tuner.loop_nest.loop_nest`), the first 500 lines; ``nest_cut`` where there are more

    Weights are as the schedule reads them, reordered ahead of time. Tasks beyond 8 MiB, and those that cannot be
    described, are left out and logged.
    """
    chosen_by = plan.chosen_by(tasks, guessed_by=guessed_by)
    shown: list[dict[str, Any]] = []
    room = _MOST_BYTES
    for task in needed_tasks(tasks, plan.ways):
        key, name = task.tuning.key, task.tuning.name
        winner = plan.winners.get(key)
        traces = ([winner.trace] if winner else []) + plan.defaults.get(key, [])
        try:
            described = _described(task.tuning.workload.module_json, traces, Target(target.tvm))
        except Exception as error:  # a picture is not worth a job
            log(f"{name}: its schedule cannot be shown: {type(error).__name__}")
            continue
        room -= len(json.dumps(described))
        if room < 0:
            log(f"{name} and what follows it are not shown: the schedules are too long")
            break
        knobs = winner.knobs if winner else {}
        shown.append({"key": key, "name": name, "chosen_by": chosen_by[name], "knobs": knobs, **described})
    return shown


def _described(module_json: str, traces: Sequence[str], target: Target) -> dict[str, Any]:
    before = tvm.ir.load_json(module_json)
    after = _scheduled(before, traces, target)
    function = before if after is None else after
    nest = loop_nest(function)
    return {
        "before": _script(before),
        "after": None if after is None else _script(after),
        "parameters": parameters(function),
        "nest": nest[:_MOST_LINES],
        "nest_cut": len(nest) > _MOST_LINES,
    }


def _scheduled(mod: tvm.IRModule, traces: Sequence[str], target: Target) -> tvm.IRModule | None:
    """By the first trace that replays, as the network is built (`tuner.compile`)."""
    processors = initialized_postprocs(mod, target) if traces else []
    for trace in traces:
        try:
            scheduled = replay(mod, trace, processors).mod
        except ReplayError:
            continue
        repacked = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(scheduled)
        return tvm.IRModule({"main": _without_reordering(repacked["main"])})
    return None


def _without_reordering(function: PrimFunc) -> PrimFunc:
    """Without the loops that reordered weights: `RemoveWeightLayoutRewriteBlock` leaves them, with nothing to do."""
    root = function.body.block
    if not isinstance(root.body, SeqStmt):
        return function

    def reorders(statement: Any) -> bool:
        return any(_REORDERS in block.annotations for block in blocks_of(statement))

    kept = [each for each in root.body.seq if not reorders(each)]
    block = SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        kept[0] if len(kept) == 1 else SeqStmt(kept),
        root.init,
        root.alloc_buffers,
        root.match_buffers,
        root.annotations,
        root.span,
    )
    realized = function.body
    body = SBlockRealize(realized.iter_values, realized.predicate, block, realized.span)
    return PrimFunc(function.params, body, function.ret_type, function.attrs, function.span)


def _script(mod: tvm.IRModule) -> dict[str, Any]:
    script = main_script(mod)
    if len(script.encode()) <= _LONGEST_SCRIPT:
        return {"script": script, "cut": False}
    head = script.encode()[:_LONGEST_SCRIPT].decode(errors="ignore")
    return {"script": head[: head.rfind("\n") + 1], "cut": True}
