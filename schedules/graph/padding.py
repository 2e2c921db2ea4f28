"""Padding, as the ONNX importer writes it, back to an operator, and into the convolution that reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax
from tvm.ir import Call, IRModule, Op, TensorLoad
from tvm.tirx import FloatImm, IntImm

from schedules.graph.index_expressions import conjuncts, evaluate, mentions, only_block
from schedules.graph.rewrite import Walk, integers, op_name, rewrite_main, static_shape


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Elements before and after each axis, and what they are filled with."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    fill: float

    @property
    def widths(self) -> list[int]:
        return [width for pair in zip(self.before, self.after, strict=True) for width in pair]


def restore_padding(mod: IRModule) -> IRModule:
    """Turn calls of constant-padding PrimFuncs into `relax.nn.pad`, and zeros around a convolution into its padding.

    The importer emits Pad as functions of its own, opaque to layout and fusion. They are recognized by their body. A
    padding that a convolution does itself is no pass over memory of its own: its schedule places the copy.

    Before::

        a = call_tir(pad, (x,)); b = conv2d(a, w, padding=[0, 0, 0, 0])

    After::

        b = conv2d(x, w, padding=[1, 1, 1, 1])
    """

    def restored(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if op_name(value) != "call_tir" or len(value.args[1].fields) != 1:
            return None
        padding = constant_padding(mod[value.args[0]])
        if padding is None:
            return None
        return relax.op.nn.pad(walk.new(value.args[1].fields[0]), padding.widths, "constant", padding.fill)

    return rewrite_main(rewrite_main(mod, restored), _into_convolution)


def constant_padding(function: object) -> Padding | None:
    """What a PrimFunc pads with, if that is all it does: ``out[v] = x[v - before] if inside else fill``."""
    found = only_block(function)
    if found is None:
        return None
    block, store = found
    value = store.value
    if not isinstance(value, Call) or not isinstance(value.op, Op) or value.op.name != "prim.if_then_else":
        return None
    condition, inside, fill = value.args
    if not isinstance(inside, TensorLoad) or not isinstance(fill, FloatImm | IntImm):
        return None
    axes = [axis.var for axis in block.iter_vars]
    extents = [int(axis.dom.extent) for axis in block.iter_vars]
    shape = [int(extent) for extent in inside.source.shape]
    if len(shape) != len(axes) or not all(index.same_as(axis) for index, axis in zip(store.indices, axes, strict=True)):
        return None
    tests = conjuncts(condition)
    befores = []
    for axis, extent, length, index in zip(axes, extents, shape, inside.indices, strict=True):
        positions = np.arange(extent)
        read = evaluate(index, axis, positions)
        about = [evaluate(test, axis, positions) for test in tests if mentions(test, axis)]
        if read is None or any(test is None for test in about) or np.any(np.diff(read) != 1):
            return None
        allowed = np.logical_and.reduce([np.ones(extent, dtype=bool), *(test for test in about if test is not None)])
        if not np.array_equal(allowed, (read >= 0) & (read < length)):
            return None
        befores.append(-int(read[0]))
    afters = [extent - length - before for extent, length, before in zip(extents, shape, befores, strict=True)]
    if min(befores) < 0 or min(afters) < 0:
        return None
    return Padding(before=tuple(befores), after=tuple(afters), fill=float(fill.value))


def _into_convolution(walk: Walk, _variable: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if op_name(value) != "nn.conv2d" or value.attrs.data_layout != "NCHW":
        return None
    pad = walk.definition(value.args[0])
    if pad is None or op_name(pad) != "nn.pad" or pad.attrs.pad_mode != "constant" or static_shape(pad) is None:
        return None
    widths = integers(pad.attrs.pad_width)
    if any(widths[:4]) or min(widths) < 0 or float(pad.attrs.pad_value) != 0.0:
        return None
    top, bottom, left, right = widths[4:]
    own = integers(value.attrs.padding)
    return relax.op.nn.conv2d(
        walk.new(pad.args[0]),
        walk.new(value.args[1]),
        strides=integers(value.attrs.strides),
        padding=[own[0] + top, own[1] + left, own[2] + bottom, own[3] + right],
        dilation=integers(value.attrs.dilation),
        groups=int(value.attrs.groups),
        data_layout="NCHW",
        kernel_layout=str(value.attrs.kernel_layout),
        out_dtype=value.attrs.out_dtype or None,
    )
