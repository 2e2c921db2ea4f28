"""Powers with small constant exponents, as multiplications and square roots."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import Walk, array_of, dtype_of, op_name, rewrite_main

Emit = Callable[[relax.Expr], relax.Expr]


def expand_powers(mod: IRModule) -> IRModule:
    """Replace ``power(x, constant)`` where the constant has a short form: ½, ¼, ¾, 1, 2, 3 and -½.

    A power is a scalar call of the C library for each element, which no vectorized loop survives; local response
    normalization has one with ¾ for every element of its input. Square roots are single vector instructions. The
    results differ from ``pow`` for -0 and -infinity only, where the square root keeps the sign or is NaN.

    Before::

        y = power(x, 0.75)

    After::

        r = sqrt(x); q = sqrt(r); y = multiply(r, q)
    """

    def rule(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "power" or not dtype_of(value).startswith("float"):
            return None
        exponents = array_of(value.args[1])
        if exponents is None or exponents.size != 1 or exponents.ndim > value.args[0].ty.ndim:
            return None
        expand = _EXPANSIONS.get(float(exponents.item()))
        return None if expand is None else expand(walk.emit, walk.new(value.args[0]))

    return rewrite_main(mod, rule)


def _three_quarters(emit: Emit, x: relax.Expr) -> relax.Expr:
    root = emit(relax.op.sqrt(x))
    return relax.op.multiply(root, emit(relax.op.sqrt(root)))


_EXPANSIONS: Mapping[float, Callable[[Emit, relax.Expr], relax.Expr]] = {
    -0.5: lambda _emit, x: relax.op.rsqrt(x),
    0.25: lambda emit, x: relax.op.sqrt(emit(relax.op.sqrt(x))),
    0.5: lambda _emit, x: relax.op.sqrt(x),
    0.75: _three_quarters,
    1.0: lambda _emit, x: x,
    2.0: lambda _emit, x: relax.op.multiply(x, x),
    3.0: lambda emit, x: relax.op.multiply(emit(relax.op.multiply(x, x)), x),
}
