"""Channels last: two-dimensional convolutions, and everything between them, from NCHW to NHWC.

On CPUs the channel is the axis to vectorize, and with it innermost the loads of a tile are contiguous. Relax's own
`ConvertLayout` stops at operators without an inference rule, and surrounds each one with transposes.
"""

from __future__ import annotations

from functools import partial

from tvm import relax
from tvm.ir import Call, IRModule

from schedules.graph.layout_rules import RULES, Channels
from schedules.graph.rewrite import (
    ENTRY,
    Walk,
    array_of,
    constant,
    integers,
    is_straight,
    op_name,
    rewrite_main,
    static_shape,
)

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)
_OIHW_TO_HWIO = (2, 3, 1, 0)


def channels_last(mod: IRModule) -> IRModule:
    """Compute convolutions in NHWC with HWIO weights, and carry that layout as far as operators allow.

    A tensor is transposed where an operator without a rule reads it, and at the model's inputs and outputs: for most
    convolutional networks one transpose at either end, or none where height and width are 1 by then. Constant
    weights are transposed here, by NumPy. A module without convolutions is returned as it is.

    Before::

        a = conv2d(x, w, "NCHW", "OIHW"); b = add(a, bias[1, C, 1, 1]); c = max_pool2d(b, "NCHW")

    After::

        p = permute_dims(x, (0, 2, 3, 1))
        a = conv2d(p, w', "NHWC", "HWIO"); b = add(a, bias'[1, 1, 1, C]); d = max_pool2d(b, "NHWC")
        c = permute_dims(d, (0, 3, 1, 2))
    """
    if not has_convolutions(mod):
        return mod
    layouts = _Layouts()
    return rewrite_main(mod, layouts.rule)


def has_convolutions(mod: IRModule) -> bool:
    """Whether `channels_last` has anything to start from."""
    function = mod[ENTRY]
    return is_straight(function) and any(_is_convolution(binding.value) for binding in function.body.blocks[0].bindings)


def count_transposes(mod: IRModule) -> int:
    """How many `permute_dims` of non-constant tensors ``main`` has."""
    function = mod[ENTRY]
    return sum(
        op_name(binding.value) == "permute_dims" and array_of(binding.value.args[0]) is None
        for block in function.body.blocks
        for binding in block.bindings
    )


class _Layouts:
    """Which tensors of the old function exist channels-last in the new one. Their NCHW form is made when it is read."""

    def __init__(self) -> None:
        self._last: dict[relax.Var, relax.Expr] = {}

    def rule(self, walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        channels = Channels(walk=walk, is_last=self._is_last, last=partial(self._channels_last, walk))
        if _is_convolution(value):
            self._set(walk, variable, self._convolution(walk, value))
            return None
        name = op_name(value) or type(value).__name__
        answer = RULES[name](channels, value) if name in RULES else None
        if answer is not None and answer.is_channels_last:
            self._set(walk, variable, answer.value)
            return None
        if answer is not None:
            return answer.value
        # Shape operators may be part of a pattern that ends later (channel shuffle, LRN): only what is read is made.
        walk.defer(variable, lambda: walk.emit(walk.new(value)))
        return None

    def _set(self, walk: Walk, variable: relax.Var, value: relax.Expr) -> None:
        last = walk.emit(value)
        self._last[variable] = last
        walk.defer(variable, lambda: walk.emit(_transposed(last, TO_NCHW)))

    def _is_last(self, expression: relax.Expr) -> bool:
        return isinstance(expression, relax.Var) and expression in self._last

    def _channels_last(self, walk: Walk, expression: relax.Expr) -> relax.Expr:
        """The channels-last form of an old rank-4 tensor: there already, a transposed constant, or a transpose."""
        if isinstance(expression, relax.Var):
            if expression not in self._last:
                self._last[expression] = walk.emit(_transposed(walk.new(expression), TO_NHWC))
            return self._last[expression]
        values = array_of(expression)
        if values is None:
            return walk.emit(_transposed(walk.emit(walk.new(expression)), TO_NHWC))
        return constant(values.transpose(TO_NHWC))

    def _convolution(self, walk: Walk, call: Call) -> relax.Expr:
        data, weight = call.args
        values = array_of(weight)
        if values is not None:
            kernel = constant(values.transpose(_OIHW_TO_HWIO))
        else:
            kernel = walk.emit(relax.op.permute_dims(walk.new(weight), list(_OIHW_TO_HWIO)))
        return relax.op.nn.conv2d(
            self._channels_last(walk, data),
            kernel,
            strides=integers(call.attrs.strides),
            padding=integers(call.attrs.padding),
            dilation=integers(call.attrs.dilation),
            groups=int(call.attrs.groups),
            data_layout="NHWC",
            kernel_layout="HWIO",
            out_dtype=call.attrs.out_dtype or None,
        )


def _is_convolution(value: relax.Expr) -> bool:
    return (
        op_name(value) == "nn.conv2d"
        and value.attrs.data_layout == "NCHW"
        and value.attrs.out_layout in ("", "NCHW")
        and value.attrs.kernel_layout == "OIHW"
    )


def _transposed(tensor: relax.Expr, axes: tuple[int, ...]) -> relax.Expr:
    """A transpose, or the reshape that does the same where only one of the moved axes is longer than 1."""
    shape = static_shape(tensor)
    if shape is not None:
        kept = [axis for axis in range(len(shape)) if shape[axis] != 1]
        if [axis for axis in axes if shape[axis] != 1] == kept:
            return relax.op.reshape(tensor, [shape[axis] for axis in axes])
    return relax.op.permute_dims(tensor, list(axes))
