"""The loops and buffers of a function as a list of lines, for people who look at a schedule.

Read from the function itself: what a loop iterates over comes from the blocks that it binds, a buffer's place and
extent from the passes that give it its final ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, transform
from tvm.s_tir import SBlockRealize
from tvm.tirx import For, ForKind, IfThenElse, IntImm, SeqStmt, Var
from tvm.tirx.analysis import undefined_vars

from schedules.blocks import blocks_of
from schedules.knobs import axis_name
from schedules.memory.workspace import with_final_extents
from schedules.windows.template import is_chain

Line = dict[str, Any]
_KINDS = {
    ForKind.SERIAL: "serial",
    ForKind.PARALLEL: "parallel",
    ForKind.VECTORIZED: "vectorized",
    ForKind.UNROLLED: "unrolled",
}
_UNROLL = "pragma_auto_unroll_max_step"
_LONGEST_CONDITION = 160


def loop_nest(mod: tvm.IRModule) -> list[Line]:
    """The lines of the function ``main``, outermost first, each with its ``depth`` and ``what`` it is::

        loop       name, extent (None where it is not constant), kind (serial, parallel, vectorized, unrolled, or the
                   thread of a GPU), of (the iterators of the block that it runs through), unroll (the largest body that
                   is unrolled under it, None without a bound)
        buffer     name, scope, dtype, shape, bytes (None where not constant): allocated here
        block      name, where (the condition, "" without one): loops inside belong to it
        statement  name, where, writes, reads (names of buffers)

    Loops of one iteration are left out.
    """
    placed = transform.Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        ]
    )(mod)
    reader = _Reader(shapes=_final_shapes(mod, placed))
    reader.read(placed["main"].body, depth=0)
    return reader.lines


def parameters(mod: tvm.IRModule) -> list[Line]:
    """The buffers that ``main`` is given: name, scope, dtype, shape, bytes, and ``role`` (input, output, or ``ring``
    for the rows that a chain keeps: strips × rows × columns × channels)."""
    function, chain = mod["main"], is_chain(mod)
    written = {str(region.source.name) for block in blocks_of(function.body) for region in block.writes}
    lines = []
    for parameter in function.params:
        if not hasattr(parameter, "shape"):
            continue
        name = str(parameter.name)
        role = "ring" if chain and name.startswith("ring") else "output" if name in written else "input"
        lines.append({**_described(parameter, parameter.shape), "role": role})
    return lines


def main_script(mod: tvm.IRModule) -> str:
    """The TVMScript of ``main``. Integers of the type that its loops have are written without it."""
    function = mod["main"]
    return str(function.script(int_dtype=_loop_dtype(function.body)))


class _Reader:
    def __init__(self, *, shapes: list[Any]) -> None:
        self.lines: list[Line] = []
        self._shapes = iter(shapes)

    def read(self, statement: Any, *, depth: int) -> None:
        match statement:
            case SeqStmt():
                for each in statement.seq:
                    self.read(each, depth=depth)
            case For():
                self._loop(statement, depth=depth)
            case SBlockRealize():
                self._block(statement, depth=depth)
            case IfThenElse():
                self._add(depth, "block", name="if", where=_short(statement.condition))
                self.read(statement.then_case, depth=depth + 1)
                if statement.else_case is not None:
                    self._add(depth, "block", name="else", where="")
                    self.read(statement.else_case, depth=depth + 1)
            case _ if getattr(statement, "body", None) is not None:
                self.read(statement.body, depth=depth)

    def _loop(self, loop: For, *, depth: int) -> None:
        extent = int(loop.extent) if isinstance(loop.extent, IntImm) else None
        if extent != 1:
            bound = loop.annotations.get(_UNROLL) if loop.annotations else None
            tag = str(loop.thread_binding.thread_tag) if loop.thread_binding is not None else ""
            self._add(
                depth,
                "loop",
                name=str(loop.loop_var.name),
                extent=extent,
                kind=tag or _KINDS.get(ForKind(loop.kind), "serial"),
                of=_iterators(loop),
                unroll=None if bound is None else int(bound),
            )
            depth += 1
        self.read(loop.body, depth=depth)

    def _block(self, realized: SBlockRealize, *, depth: int) -> None:
        block = realized.block
        is_always = isinstance(realized.predicate, IntImm) and bool(int(realized.predicate))
        where = "" if is_always else _short(realized.predicate)
        has_parts = any(True for _ in _realized_in(block.body))
        name = str(block.name_hint)
        if not has_parts:
            names = ([str(region.source.name) for region in regions] for regions in (block.writes, block.reads))
            writes, reads = (list(dict.fromkeys(each)) for each in names)
            self._buffers(block, depth=depth)
            self._add(depth, "statement", name=name, where=where, writes=writes, reads=reads)
            return
        if where or name not in ("", "root"):
            self._add(depth, "block", name=name, where=where)
            depth += 1
        self._buffers(block, depth=depth)
        self.read(block.body, depth=depth)

    def _buffers(self, block: Any, *, depth: int) -> None:
        for buffer in block.alloc_buffers:
            self._add(depth, "buffer", **_described(buffer, next(self._shapes, buffer.shape)))

    def _add(self, depth: int, what: str, **values: Any) -> None:
        self.lines.append({"depth": depth, "what": what, **values})


def _final_shapes(mod: tvm.IRModule, placed: tvm.IRModule) -> list[Any]:
    """The extents of all buffers, in the order of the program; as they are written where TVM cannot tell."""
    written = [buffer for block in blocks_of(placed["main"].body) for buffer in block.alloc_buffers]
    try:
        compact = with_final_extents(mod)["main"].body
    except tvm.error.InternalError:
        return [buffer.shape for buffer in written]
    final = [buffer for block in blocks_of(compact) for buffer in block.alloc_buffers]
    agree = [str(each.name) for each in final] == [str(each.name) for each in written]
    return [buffer.shape for buffer in (final if agree else written)]


def _realized_in(statement: Any) -> Iterator[SBlockRealize]:
    """The outermost blocks under a statement."""
    match statement:
        case SBlockRealize():
            yield statement
        case SeqStmt():
            for each in statement.seq:
                yield from _realized_in(each)
        case IfThenElse():
            yield from _realized_in(statement.then_case)
            if statement.else_case is not None:
                yield from _realized_in(statement.else_case)
        case _ if getattr(statement, "body", None) is not None:
            yield from _realized_in(statement.body)


def _iterators(loop: For) -> list[str]:
    """What a loop runs through: the iterators that it has a part in, of the block under it with the most of them."""

    def bound(realized: SBlockRealize) -> list[str]:
        block = realized.block
        names = [
            str(iterator.var.name)
            for iterator, value in zip(block.iter_vars, realized.iter_values, strict=True)
            if _reads(value, loop.loop_var)
        ]
        own = str(loop.loop_var.name)
        return [own if name == f"v{own}" else axis_name(str(block.name_hint), name) for name in names]

    inside: list[SBlockRealize] = []
    for realized in _realized_in(loop.body):
        inside.append(realized)
        if not str(realized.block.name_hint):  # made for the sake of a buffer: it binds nothing of its own
            inside.extend(_realized_in(realized.block.body))
    inside.sort(key=lambda realized: -len(realized.block.iter_vars))
    return next((names for realized in inside if (names := bound(realized))), [])


def _reads(expression: Any, variable: Var) -> bool:
    return any(variable.same_as(each) for each in undefined_vars(expression))


def _described(buffer: Any, shape: Any) -> Line:
    extents = [int(extent) if isinstance(extent, IntImm) else None for extent in shape]
    known = [extent for extent in extents if extent is not None]
    dtype = str(buffer.dtype)
    size = math.prod(known) * -(-tvm_ffi.dtype(dtype).bits // 8) if len(known) == len(extents) else None
    return {
        "name": str(buffer.name),
        "scope": str(buffer.scope()) or "global",
        "dtype": dtype,
        "shape": extents,
        "bytes": size,
    }


def _loop_dtype(statement: Any) -> str:
    """The integer type of the first loop."""
    match statement:
        case For():
            return str(statement.loop_var.ty)
        case SeqStmt():
            return _loop_dtype(statement.seq[0])
        case SBlockRealize():
            return _loop_dtype(statement.block.body)
    body = getattr(statement, "body", None)
    return "int32" if body is None else _loop_dtype(body)


def _short(expression: Any) -> str:
    text = " ".join(str(expression).split())
    return text if len(text) <= _LONGEST_CONDITION else text[: _LONGEST_CONDITION - 1] + "…"
