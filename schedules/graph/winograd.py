"""Convolutions computed by Winograd's minimal filtering, where somebody says so."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from tvm import relax
from tvm.ir import Call, IRModule

from schedules.graph.rewrite import (
    ENTRY,
    FUSES_ELEMENTWISE,
    OPAQUE,
    Rule,
    Walk,
    array_of,
    constant,
    dtype_of,
    integers,
    is_straight,
    op_name,
    static_shape,
)
from schedules.winograd import (
    INPUT,
    OUTPUT,
    PRODUCT,
    ConvolutionShape,
    input_transform,
    output_transform,
    product,
    transformed_weights,
)

_MIN_CHANNELS = 16
"""With fewer the transforms cost more than the products save."""


def winograd_convolutions(mod: IRModule) -> dict[relax.Var, ConvolutionShape]:
    """The convolutions of a prepared ``main`` (NHWC) that `winograd_rule` can compute, by what they are bound to."""
    function = mod[ENTRY]
    if not is_straight(function):
        return {}
    shapes = {binding.var: winograd_shape(binding.value) for binding in function.body.blocks[0].bindings}
    return {variable: shape for variable, shape in shapes.items() if shape is not None}


def winograd_rule(convolutions: Mapping[relax.Var, ConvolutionShape]) -> Rule:
    """Compute these convolutions in three steps, with their weights transformed here, by NumPy.

    Before::

        y = conv2d(x, w, padding=1, "NHWC", "HWIO")

    After::

        v = call_tir(winograd_input, (x,))            # opaque: nothing is fused into it
        m = call_tir(winograd_product, (v, u))        # u: constant, (36, inputs, outputs)
        y = call_tir(winograd_output, (m,))           # what follows is fused behind it, as behind the convolution
    """

    def rule(walk: Walk, variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        shape = convolutions.get(variable)
        if shape is None:
            return None
        top, left = integers(value.attrs.padding)[:2]
        weights = array_of(value.args[1])
        assert weights is not None
        data = walk.emit(walk.new(value.args[0]))
        spread = constant(transformed_weights(weights))
        transform = partial(input_transform, shape=shape, top=top, left=left)
        tiles = walk.emit_te(transform, data, name=INPUT, pattern=OPAQUE)
        products = walk.emit_te(partial(product, shape=shape), tiles, spread, name=PRODUCT, pattern=OPAQUE)
        finished = partial(output_transform, shape=shape)
        return walk.emit_te(finished, products, name=OUTPUT, pattern=FUSES_ELEMENTWISE)

    return rule


def winograd_shape(value: relax.Expr) -> ConvolutionShape | None:
    """The shape of a convolution that Winograd can compute, None for everything else."""
    if not isinstance(value, Call) or op_name(value) != "nn.conv2d" or value.attrs.data_layout != "NHWC":
        return None
    data, weights, output = static_shape(value.args[0]), static_shape(value.args[1]), static_shape(value)
    if data is None or weights is None or output is None or array_of(value.args[1]) is None:
        return None
    plain = integers(value.attrs.strides) == integers(value.attrs.dilation) == [1, 1] and int(value.attrs.groups) == 1
    is_float = dtype_of(value.args[0]) == dtype_of(value.args[1]) == dtype_of(value) == "float32"
    if not plain or not is_float or value.attrs.kernel_layout != "HWIO" or weights[:2] != (3, 3):
        return None
    if min(weights[2:]) < _MIN_CHANNELS or value.attrs.out_layout not in ("", "NHWC"):
        return None
    batch, rows, columns, outputs = output
    return ConvolutionShape(batch=batch, rows=rows, columns=columns, inputs=weights[2], outputs=outputs)
