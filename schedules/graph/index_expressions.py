"""Evaluating index expressions and conditions of PrimFuncs over all values of one block axis."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.s_tir import SBlockRealize
from tvm.tirx import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    Add,
    And,
    BufferStore,
    Expr,
    FloorDiv,
    FloorMod,
    For,
    IntImm,
    Mul,
    PrimFunc,
    Sub,
    Var,
)

Array = npt.NDArray[Any]

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    Add: operator.add,
    Sub: operator.sub,
    Mul: operator.mul,
    FloorDiv: operator.floordiv,
    FloorMod: operator.mod,
    LT: operator.lt,
    LE: operator.le,
    GT: operator.gt,
    GE: operator.ge,
    EQ: operator.eq,
    NE: operator.ne,
    And: operator.and_,
}


def only_block(function: object) -> tuple[Any, BufferStore] | None:
    """The block and the store of a function that is one perfect nest around one block without initialization."""
    if not isinstance(function, PrimFunc):
        return None
    statement, block = function.body, None
    while isinstance(statement, For | SBlockRealize):
        if isinstance(statement, SBlockRealize):
            block = statement.block
            if block.init is not None:
                return None
            statement = block.body
        else:
            statement = statement.body
    return (block, statement) if block is not None and isinstance(statement, BufferStore) else None


def mentions(expression: Expr, variable: Var) -> bool:
    """Whether an index expression depends on a variable."""
    if isinstance(expression, Var):
        return bool(expression.same_as(variable))
    return any(mentions(getattr(expression, side), variable) for side in ("a", "b") if hasattr(expression, side))


def evaluate(expression: Expr, variable: Var, values: Array) -> Array | None:
    """An expression for every value of its one variable; None where it has another one, or an unknown operator."""
    if isinstance(expression, Var):
        return values if expression.same_as(variable) else None
    if isinstance(expression, IntImm):
        return np.full_like(values, int(expression.value))
    combine = _OPERATORS.get(type(expression))
    if combine is None:
        return None
    left, right = evaluate(expression.a, variable, values), evaluate(expression.b, variable, values)
    if left is None or right is None:
        return None
    result: Array = combine(left, right)
    return result


def conjuncts(condition: Expr) -> list[Expr]:
    """The parts of ``a and b and c``."""
    if isinstance(condition, And):
        return [*conjuncts(condition.a), *conjuncts(condition.b)]
    return [condition]
