"""Chains of windowed operators computed by sliding windows, where somebody says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tvm import relax
from tvm.tirx import PrimFunc

from schedules.graph.rewrite import OPAQUE, Rule, Walk, constant
from schedules.windows.find import FoundChain
from schedules.windows.lower import lower, parameters_of
from schedules.windows.rows import RowPlan
from schedules.windows.stages import Chain

NAME = "windows"
LABEL = "windows_label"
"""Attribute of a chain's function: the label that it was asked for with. No part of what it computes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """A chain that is to be computed by a plan."""

    chain: FoundChain
    plan: RowPlan
    label: str = ""


def windows_rule(wanted: Sequence[Windows]) -> Rule:
    """Compute these chains of ``main`` (found in this very module, sharing no stage) by their plans.

    Before::

        a = conv2d(x, k0); b = add(a, bias); c = clip(b); d = conv2d(c, k1, groups=96); ...

    After::

        y, rings = call_tir(windows, (x, k0, bias, k1, ...))    # opaque: nothing is fused into it
    """
    by_output = {each.chain.output: each for each in wanted}
    inside = {variable for each in wanted for variable in each.chain.variables} - by_output.keys()

    def rule(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if variable in inside:
            # Nothing outside of the chain reads it, and the chain does not need it any more.
            walk.defer(variable, lambda: walk.new(value))
        if variable not in by_output:
            return None
        found, plan = by_output[variable].chain, by_output[variable].plan
        chain = found.chain
        operands = [constant(each) if isinstance(each, np.ndarray) else each for each in found.arguments]
        written = [each for each in parameters_of(chain, plan) if each.role in ("output", "ring")]
        types = [relax.TensorType(each.shape, "float32") for each in written]
        function = _lowered(chain, plan).with_attr(LABEL, by_output[variable].label)
        return walk.emit_function(function, found.reads, *operands, name=NAME, types=types, pattern=OPAQUE)

    return rule


@lru_cache(maxsize=256)
def _lowered(chain: Chain, plan: RowPlan) -> PrimFunc:
    """TVM parses a function of six stages in 0.1 s, and a job needs each several times."""
    return lower(chain, plan)
