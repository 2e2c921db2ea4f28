"""Names of blocks that do not depend on where in a network a function comes from."""

from __future__ import annotations

from typing import Any

from tvm.ir import IRModule
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx import For, PrimFunc, SeqStmt

from schedules.blocks import blocks_of

_NEUTRAL = "x"


def neutral_block_names(mod: IRModule) -> IRModule:
    """Rename blocks that are named after an input, before functions are fused.

    TOPI names a reduction after the tensor that it reduces, and Relax names that after its place in the network. Traces
    find blocks by name: without this, what was recorded for one network could not be replayed for the same function of
    another.

    Before::

        def mean(lv66, out): with T.sblock("lv66_red"): ...

    After::

        def mean(lv66, out): with T.sblock("x_red"): ...
    """
    renamed = mod.clone()
    for variable, function in mod.functions.items():
        if isinstance(function, PrimFunc):
            body = _renamed(function.body, _inputs(function))
            if not body.same_as(function.body):
                renamed.update_func(variable, function.with_body(body))
    return renamed


def _inputs(function: PrimFunc) -> list[str]:
    """The names of the parameters that no block writes, longest first."""
    written = {str(region.source.name) for block in blocks_of(function.body) for region in block.writes}
    names = {str(parameter.name) for parameter in function.params} - written
    return sorted(names, key=len, reverse=True)


def _renamed(statement: Any, inputs: list[str]) -> Any:
    """The statement with its blocks renamed, itself where none is."""
    if isinstance(statement, SBlockRealize):
        block = statement.block
        body, name = _renamed(block.body, inputs), _neutral(str(block.name_hint), inputs)
        if body.same_as(block.body) and name == block.name_hint:
            return statement
        changed = SBlock(
            block.iter_vars,
            block.reads,
            block.writes,
            name,
            body,
            block.init,
            block.alloc_buffers,
            block.match_buffers,
            block.annotations,
            block.span,
        )
        return SBlockRealize(statement.iter_values, statement.predicate, changed, statement.span)
    if isinstance(statement, For):
        body = _renamed(statement.body, inputs)
        if body.same_as(statement.body):
            return statement
        return For(
            statement.loop_var,
            statement.min,
            statement.extent,
            statement.kind,
            body,
            statement.thread_binding,
            statement.annotations,
            statement.step,
            statement.span,
        )
    if isinstance(statement, SeqStmt):
        parts = [_renamed(part, inputs) for part in statement.seq]
        same = all(new.same_as(old) for new, old in zip(parts, statement.seq, strict=True))
        return statement if same else SeqStmt(parts, statement.span)
    return statement


def _neutral(name: str, inputs: list[str]) -> str:
    for each in inputs:
        if name.startswith(f"{each}_"):
            return _NEUTRAL + name[len(each) :]
    return name
