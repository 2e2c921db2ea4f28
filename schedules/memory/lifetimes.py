"""Which tensors of a network are alive when, read from a ``main`` whose calls write into tensors that it allocates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax, transform
from tvm.ir import Call, GlobalVar, IRModule

from schedules.graph.rewrite import ENTRY, op_name, static_shape, variables_of
from schedules.memory.storages import Lifetime, live_bytes

ALLOCATION = "builtin.alloc_tensor"

Origins = frozenset[relax.Var] | tuple["Origins", ...]
"""The allocations that a value may lie in; of a tuple, those of its fields."""


@dataclass(frozen=True, kw_only=True)
class Activations:
    """The tensors of a network between its input and its output.

    ``lifetimes`` by the variable of the allocation, in ``steps``: one for each binding, named after the function that
    it calls, or empty. ``input_bytes`` are the caller's, ``output_bytes`` are handed to the caller: neither is in
    ``lifetimes``.
    """

    lifetimes: dict[relax.Var, Lifetime]
    steps: tuple[str, ...]
    input_bytes: int
    output_bytes: int

    @property
    def timeline(self) -> list[tuple[str, int]]:
        """Each function that is called, in order, and how many bytes are alive meanwhile."""
        live = live_bytes(list(self.lifetimes.values()), len(self.steps))
        return [(name, alive) for name, alive in zip(self.steps, live, strict=True) if name]

    @property
    def peak_bytes(self) -> int:
        return max((alive for _, alive in self.timeline), default=0)


def with_allocations(mod: IRModule) -> IRModule:
    """The module with every call's output allocated by ``main``, and reshapes as views.

    Before::

        y = call_tir(conv, (x, w))

    After::

        alloc = builtin.alloc_tensor(shape of y); conv(x, w, alloc); y = alloc
    """
    return transform.Sequential(
        [
            relax.transform.RewriteDataflowReshape(),
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
        ]
    )(mod)


def activations(mod: IRModule) -> Activations | None:
    """The activations of a module `with_allocations`; None where ``main`` branches or a shape is not known."""
    function = mod[ENTRY]
    blocks = function.body.blocks
    if len(blocks) != 1 or not all(isinstance(binding, relax.VarBinding) for binding in blocks[0].bindings):
        return None
    origins: dict[relax.Var, Origins] = {}
    sizes: dict[relax.Var, int] = {}
    uses: dict[relax.Var, list[int]] = {}
    steps = []
    for step, binding in enumerate(blocks[0].bindings):
        value = binding.value
        steps.append(value.op.name_hint if isinstance(value, Call) and isinstance(value.op, GlobalVar) else "")
        if op_name(value) == ALLOCATION:
            size = _bytes(binding.var)
            if size is None:
                return None
            sizes[binding.var], origins[binding.var] = size, frozenset([binding.var])
            continue
        origins[binding.var] = _origins(value, origins)
        for variable in variables_of(value):
            for origin in _flat(origins.get(variable, frozenset())):
                uses.setdefault(origin, []).append(step)
    returned = _flat(_origins(function.body.body, origins))
    inputs = [_bytes(parameter) for parameter in function.params]
    if None in inputs:
        return None
    return Activations(
        lifetimes={
            variable: Lifetime(size_bytes=size, first=uses[variable][0], last=uses[variable][-1])
            for variable, size in sizes.items()
            if variable in uses and variable not in returned
        },
        steps=tuple(steps),
        input_bytes=sum(each or 0 for each in inputs),
        output_bytes=sum(size for variable, size in sizes.items() if variable in returned),
    )


def _origins(value: relax.Expr, known: dict[relax.Var, Origins]) -> Origins:
    match value:
        case relax.Var():
            return known.get(value, frozenset())
        case relax.Tuple():
            return tuple(_origins(field, known) for field in value.fields)
        case relax.TupleGetItem():
            source = _origins(value.tuple_value, known)
            return source[value.index] if isinstance(source, tuple) else source
    # A function of ours writes into its arguments and returns nothing; what an operator returns may be a view of them.
    if isinstance(value, Call) and isinstance(value.op, GlobalVar):
        return frozenset()
    return frozenset[relax.Var]().union(*(_flat(known.get(each, frozenset())) for each in variables_of(value)))


def _flat(origins: Origins) -> frozenset[relax.Var]:
    if isinstance(origins, tuple):
        return frozenset[relax.Var]().union(*map(_flat, origins))
    return origins


def _bytes(variable: relax.Var) -> int | None:
    shape = static_shape(variable)
    return None if shape is None else math.prod(shape) * np.dtype(str(variable.ty.dtype)).itemsize
