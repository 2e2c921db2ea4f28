"""What a reduction block looks like: questions that rules ask before they apply."""

from __future__ import annotations

import math
from typing import Any

from tvm.tirx import Expr, IterVar, Var
from tvm.tirx.analysis import undefined_vars


def is_windowed(block: Any) -> bool:
    """Whether a block reduces over a window that slides along a spatial axis.

    ``out[n, h, w, c] max= x[n, 2*h + kh, 2*w + kw, c]`` does: one index adds a spatial and a reduction axis. A sum over
    a whole axis does not, and neither does an elementwise block.
    """
    spatial, reduced = _variables(block, IterVar.DataPar), _variables(block, IterVar.CommReduce)
    return any(
        _mentions(dimension.min, spatial) and _mentions(dimension.min, reduced)
        for read in block.reads
        for dimension in read.region
    )


def reduces_side_by_side(block: Any) -> bool:
    """Whether neighbouring outputs of a reduction read neighbouring elements, so that vector lanes can hold them.

    ``s[c] += x[k, c]`` does, ``s[i] += x[i, k]`` does not.
    """
    reduced = _variables(block, IterVar.CommReduce)
    if not reduced or not block.writes or not len(block.writes[0].region):
        return False
    innermost = list(undefined_vars(block.writes[0].region[-1].min))
    return any(
        len(read.region) > 0
        and _mentions(read.region[-1].min, innermost)
        and not _mentions(read.region[-1].min, reduced)
        for read in block.reads
        if not read.source.same_as(block.writes[0].source)
    )


def has_more_outputs_than_terms(block: Any) -> bool:
    """Whether a reduction has at least as many results as each of them has terms."""
    extents = {
        kind: math.prod(int(axis.dom.extent) for axis in block.iter_vars if axis.iter_type == kind)
        for kind in (IterVar.DataPar, IterVar.CommReduce)
    }
    return extents[IterVar.DataPar] >= extents[IterVar.CommReduce]


def _variables(block: Any, kind: int) -> list[Var]:
    return [axis.var for axis in block.iter_vars if axis.iter_type == kind]


def _mentions(expression: Expr, variables: list[Var]) -> bool:
    return any(used.same_as(variable) for used in undefined_vars(expression) for variable in variables)
