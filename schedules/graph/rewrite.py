"""Walking and re-emitting a Relax function: what every graph pass here is built on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax, te
from tvm.ir import Call, GenericConst, IRModule, Op
from tvm.tirx import IntImm, PrimFunc

ENTRY = "main"
OPAQUE, FUSES_ELEMENTWISE = 8, 4
"""Relax's operator patterns (``OpPatternKind``): nothing is fused with an opaque function; elementwise operators are
fused behind the other kind, as behind a convolution."""
_NUMPY_TYPES = frozenset(
    {"bool", "float16", "float32", "float64"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


class Walk:
    """One pass over the bindings of ``main``, old ones in, new ones out.

    A pass gets it with each old binding and answers with the new expression, already emitted or not. Expressions of
    the old function are asked about with `definition` and `use_count`, and translated with `new`.
    """

    def __init__(self, builder: relax.BlockBuilder, function: relax.Function) -> None:
        self._builder = builder
        self._bindings = list(function.body.blocks[0].bindings)
        self._definitions = {binding.var: binding.value for binding in self._bindings}
        self._uses: Counter[relax.Var] = Counter()
        self._renamed: dict[relax.Var, relax.Expr] = {}
        self._deferred: dict[relax.Var, Callable[[], relax.Expr]] = {}
        for binding in self._bindings:
            for variable in variables_of(binding.value):
                self._uses[variable] += 1
        for variable in variables_of(function.body.body):
            self._uses[variable] += 1

    def definition(self, expression: relax.Expr) -> relax.Expr | None:
        """What an old variable was bound to; None for parameters, constants and everything else."""
        return self._definitions.get(expression) if isinstance(expression, relax.Var) else None

    def use_count(self, variable: relax.Var) -> int:
        """How often an old variable is read, the function's result included."""
        return self._uses[variable]

    def new(self, expression: relax.Expr) -> relax.Expr:
        """An old expression in terms of the new function's variables."""
        if isinstance(expression, relax.Var):
            if expression in self._deferred:
                self._renamed[expression] = self._deferred.pop(expression)()
            return self._renamed.get(expression, expression)
        if isinstance(expression, Call):
            arguments = [self.new(argument) for argument in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.new(field) for field in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            source = self.new(expression.tuple_value)
            if isinstance(source, relax.Tuple):
                return source.fields[expression.index]
            return relax.TupleGetItem(source, expression.index)
        return expression

    def emit(self, expression: relax.Expr) -> relax.Expr:
        """Bind a new expression to a variable, with its type inferred. Atoms are handed back as they are."""
        if isinstance(expression, relax.Var | GenericConst | relax.Tuple):
            return expression
        return self._builder.emit(expression)

    def emit_te(
        self, compute: Callable[..., te.Tensor], *tensors: relax.Expr, name: str, pattern: int | None = None
    ) -> relax.Expr:
        """Bind a call of the PrimFunc that ``compute(*tensors)`` describes.

        ``pattern`` is its place in fusion (Relax's ``OpPatternKind``), None to have it read from its body.
        """
        attributes = {} if pattern is None else {"op_pattern": pattern}
        return self._builder.emit_te(compute, *tensors, primfunc_name_hint=name, primfunc_attrs=attributes)

    def emit_function(
        self,
        function: PrimFunc,
        *tensors: relax.Expr,
        name: str,
        types: Sequence[relax.TensorType],
        pattern: int,
    ) -> relax.Expr:
        """Bind a call of a PrimFunc on old tensors, that writes tensors of these types behind them; the answer is the
        first one."""
        arguments = [self.emit(self.new(tensor)) for tensor in tensors]
        body = function.without_attr("global_symbol").with_attr("op_pattern", pattern)
        outputs = list(types) if len(types) > 1 else types[0]
        call = relax.call_tir(self._builder.add_func(body, name), arguments, outputs)
        written = self._builder.emit(call)
        return written if len(types) == 1 else self._builder.emit(relax.TupleGetItem(written, 0))

    def rename(self, old: relax.Var, new: relax.Expr) -> None:
        """Let an old variable stand for a new expression from here on."""
        self._renamed[old] = new

    def defer(self, old: relax.Var, make: Callable[[], relax.Expr]) -> None:
        """Let an old variable stand for what ``make`` returns when something first reads it, if anything does."""
        self._deferred[old] = make

    def is_deferred(self, old: relax.Var) -> bool:
        return old in self._deferred


Rule = Callable[[Walk, relax.Var, relax.Expr], relax.Expr | None]
"""Given an old binding, the new expression for it, or None to keep it as it is (or when it was deferred)."""


def rewrite_main(mod: IRModule, *rules: Rule) -> IRModule:
    """Re-emit ``main`` binding by binding, then drop what nothing reads any more. Of several rules, the first one that
    has something to say of a binding counts.

    Other functions stay. A ``main`` that is not one straight dataflow block (control flow inside) is left alone.
    """
    function = mod[ENTRY]
    if not is_straight(function):
        return mod
    others = {name: other for name, other in mod.functions.items() if name.name_hint != ENTRY}
    builder = relax.BlockBuilder(IRModule(others, attrs=mod.attrs))
    walk = Walk(builder, function)
    parameters = [relax.Var(parameter.name, parameter.ty) for parameter in function.params]
    for old, new in zip(function.params, parameters, strict=True):
        walk.rename(old, new)
    attributes = {key: value for key, value in (function.attrs or {}).items() if key != "global_symbol"}
    with builder.function(ENTRY, parameters, attrs=attributes):
        with builder.dataflow():
            for binding in function.body.blocks[0].bindings:
                replacement = None
                for rule in rules:
                    replacement = rule(walk, binding.var, binding.value)
                    if replacement is not None or walk.is_deferred(binding.var):
                        break
                if not walk.is_deferred(binding.var):
                    walk.rename(binding.var, walk.emit(walk.new(binding.value) if replacement is None else replacement))
            result = builder.emit_output(walk.new(function.body.body))
        builder.emit_func_output(result)
    return relax.transform.DeadCodeElimination([ENTRY])(builder.finalize())


def has_binding(mod: IRModule, wanted: Callable[[relax.Expr], bool]) -> bool:
    """Whether `rewrite_main` would come by such an expression: far cheaper than to re-emit all for nothing."""
    function = mod[ENTRY]
    return is_straight(function) and any(wanted(binding.value) for binding in function.body.blocks[0].bindings)


def is_straight(function: object) -> bool:
    """Whether a Relax function is a single dataflow block of plain bindings."""
    if not isinstance(function, relax.Function) or not isinstance(function.body, relax.SeqExpr):
        return False
    blocks = function.body.blocks
    return (
        len(blocks) == 1
        and isinstance(blocks[0], relax.DataflowBlock)
        and all(isinstance(binding, relax.VarBinding) for binding in blocks[0].bindings)
    )


def variables_of(expression: relax.Expr) -> list[relax.Var]:
    """The variables that an expression in normal form reads, with repetitions."""
    if isinstance(expression, relax.Var):
        return [expression]
    if isinstance(expression, Call):
        return [variable for argument in expression.args for variable in variables_of(argument)]
    if isinstance(expression, relax.Tuple):
        return [variable for field in expression.fields for variable in variables_of(field)]
    if isinstance(expression, relax.TupleGetItem):
        return variables_of(expression.tuple_value)
    return []


def op_name(expression: object) -> str:
    """A call's operator without the dialect (``nn.conv2d``, ``call_tir``), or the empty string."""
    if isinstance(expression, Call) and isinstance(expression.op, Op):
        return str(expression.op.name).removeprefix("relax.")
    return ""


def static_shape(expression: relax.Expr) -> tuple[int, ...] | None:
    """The shape of a tensor, or None where a dimension is symbolic or the rank unknown."""
    shape = getattr(expression.ty, "shape", None)
    if shape is None or not all(isinstance(extent, int | IntImm) for extent in shape):
        return None
    return tuple(int(extent) for extent in shape)


def integers(values: Sequence[object]) -> list[int]:
    """Attribute lists as Python integers."""
    return [int(value) for value in values]  # type: ignore[call-overload]


def array_of(expression: relax.Expr) -> npt.NDArray[np.generic] | None:
    """A constant's values as a view that must not be written to, or None: no constant, or a type NumPy lacks."""
    if not isinstance(expression, GenericConst) or str(expression.value.dtype) not in _NUMPY_TYPES:
        return None
    return np.from_dlpack(expression.value)


def constant(values: npt.NDArray[np.generic]) -> relax.Expr:
    """A Relax constant of these values; a view in any order is copied once."""
    tensor = tvm.runtime.empty(values.shape, str(values.dtype))
    np.copyto(np.from_dlpack(tensor), values)
    return relax.const(tensor)


def dtype_of(expression: relax.Expr) -> str:
    """The element type of a tensor as NumPy spells it."""
    return str(expression.ty.dtype)
