"""Weights that a schedule may store in an order of its own."""

from __future__ import annotations

import math

from tvm import relax
from tvm.ir import GenericConst, IRModule
from tvm.tirx import PrimFunc

from schedules.graph.rewrite import ENTRY, op_name, static_shape

ATTRIBUTE = "layout_free_buffers"
_MIN_ELEMENTS = 256
"""Under this a reordered copy is not worth a constant of its own: biases and scales are read once per tile."""


def mark_layout_free(mod: IRModule) -> IRModule:
    """Set ``layout_free_buffers`` on every PrimFunc: the parameters that are constant weights at every call.

    A parameter counts when it has two long axes and is constant wherever the function is called. TVM's
    `AttachAttrLayoutFreeBuffers` names every constant, and copies a shared function for each of its callers, which
    would make several tasks of one.

    Before::

        @T.prim_func def conv(x, w, bias, y): ...;  call_tir(conv, (x, const, const))

    After::

        @T.prim_func def conv(x, w, bias, y): T.func_attr({"layout_free_buffers": [1]})
    """
    free: dict[str, set[int]] = {}
    for function in mod.functions.values():
        if not isinstance(function, relax.Function):
            continue
        for block in function.body.blocks:
            for binding in block.bindings:
                if op_name(binding.value) == "call_tir":
                    name = binding.value.args[0].name_hint
                    arguments = binding.value.args[1].fields
                    weights = {index for index, argument in enumerate(arguments) if _is_weight(argument)}
                    free[name] = free[name] & weights if name in free else weights
    marked = mod.clone()
    for variable, function in mod.functions.items():
        weights = free.get(variable.name_hint, set())
        if weights and isinstance(function, PrimFunc) and variable.name_hint != ENTRY:
            marked.update_func(variable, function.with_attr(ATTRIBUTE, sorted(weights)))
    return marked


def layout_free_parameters(function: PrimFunc) -> set[int]:
    """The positions of the parameters that are constant weights."""
    return {int(index) for index in (function.attrs or {}).get(ATTRIBUTE, [])}


def _is_weight(argument: relax.Expr) -> bool:
    shape = static_shape(argument) if isinstance(argument, GenericConst) else None
    if shape is None:
        return False
    return sum(extent > 1 for extent in shape) >= 2 and math.prod(shape) >= _MIN_ELEMENTS
