"""What scheduled functions allocate around their loops, as tensors of the network."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx import IntImm, PrimFunc

from schedules.graph.rewrite import OPAQUE, Walk, op_name, rewrite_main, static_shape
from schedules.memory.workspace import with_final_extents

_WORTH_LIFTING_BYTES = 4096


def lift_workspaces(mod: IRModule) -> IRModule:
    """Make tensors that a whole function works with (padded inputs, partial sums) outputs of the function that nothing
    reads: they share the storages of the network's tensors, and count as alive while the function runs.

    What is allocated inside of loops stays: threads have their own. Functions with several outputs stay as they are.

    Before::

        y = call_tir(conv, (x, w))                    # conv allocates a padded copy of x

    After::

        (y, padded) = call_tir(conv, (x, w))          # so does the network, where there is room
    """
    functions = {name: body for name, body in mod.functions.items() if isinstance(body, PrimFunc)}
    lifted = {name.name_hint: _lifted(body) for name, body in with_final_extents(IRModule(functions)).functions.items()}

    def rule(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "call_tir" or len(value.args) != 2 or static_shape(value) is None:
            return None
        name = value.args[0].name_hint
        function, workspaces = lifted[name]
        if not workspaces or len(function.params) != len(value.args[1].fields) + 1 + len(workspaces):
            return None
        types = [value.ty, *workspaces]
        return walk.emit_function(function, *value.args[1].fields, name=name, types=types, pattern=OPAQUE)

    return rewrite_main(mod, rule) if any(workspaces for _, workspaces in lifted.values()) else mod


def _lifted(function: PrimFunc) -> tuple[PrimFunc, list[relax.TensorType]]:
    """The function with its workspaces as last parameters, and their types."""
    realized = function.body
    if not isinstance(realized, SBlockRealize):
        return function, []
    root = realized.block
    found = {buffer: type_ for buffer in root.alloc_buffers if (type_ := _type_of(buffer)) is not None}
    if not found:
        return function, []
    block = SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        root.body,
        root.init,
        [buffer for buffer in root.alloc_buffers if buffer not in found],
        root.match_buffers,
        root.annotations,
        root.span,
    )
    body = SBlockRealize(realized.iter_values, realized.predicate, block, realized.span)
    parameters = [*function.params, *found]
    return PrimFunc(parameters, body, function.ret_type, function.attrs, function.span), list(found.values())


def _type_of(buffer: Any) -> relax.TensorType | None:
    """The type of a buffer that is worth lifting."""
    if str(buffer.scope()) not in ("", "global") or not all(isinstance(extent, IntImm) for extent in buffer.shape):
        return None
    shape = [int(extent) for extent in buffer.shape]
    size = math.prod(shape) * tvm.DataType(str(buffer.dtype)).itemsize
    return relax.TensorType(shape, str(buffer.dtype)) if size >= _WORTH_LIFTING_BYTES else None
