"""Block annotations by which TOPI asks for schedule rules of its own."""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV
from tvm.tirx import PrimFunc

from schedules.blocks import blocks_of

ATTRIBUTE = "schedule_rule"


def drop_custom_rules(mod: IRModule) -> IRModule:
    """Remove ``schedule_rule`` from every block, so that pooling and adaptive pooling get a design space.

    MetaSchedule hands a block with this annotation to a custom rule and to nothing else. TVM has none for CPUs: the
    block stayed naive.

    Before::

        with T.sblock("pool_max"): T.sblock_attr({"schedule_rule": "meta_schedule.pool_max"}); ...

    After::

        with T.sblock("pool_max"): ...
    """
    cleaned = mod.clone()
    for variable, function in mod.functions.items():
        if isinstance(function, PrimFunc) and _asks_for_rules(function):
            cleaned.update_func(variable, _cleaned(function))
    return cleaned


def _asks_for_rules(function: PrimFunc) -> bool:
    return any(ATTRIBUTE in block.annotations for block in blocks_of(function.body))


def _cleaned(function: PrimFunc) -> PrimFunc:
    schedule = Schedule(IRModule({"main": function}))
    for block in _blocks(schedule):
        if ATTRIBUTE in schedule.get(block).annotations:
            schedule.unannotate(block, ATTRIBUTE)
    return schedule.mod["main"]


def _blocks(schedule: Any) -> list[SBlockRV]:
    pending = [schedule.get_sblock("root", func_name="main")]
    found = []
    while pending:
        block = pending.pop()
        found.append(block)
        pending.extend(schedule.get_child_blocks(block))
    return found
