"""Small functions to schedule, and NumPy's answer to each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te, topi
from tvm.tirx import PrimFunc, const

Array = npt.NDArray[Any]


def matmul_relu(*, rows: int = 16, columns: int = 32, depth: int = 24) -> PrimFunc:
    a, b = te.placeholder((rows, depth), name="A"), te.placeholder((depth, columns), name="B")
    product = topi.nn.relu(topi.nn.matmul(a, b))
    return te.create_prim_func([a, b, product]).with_attr("layout_free_buffers", [1])


def matmul_relu_numpy(a: Array, b: Array) -> Array:
    return np.maximum(a @ b, 0)


def bias_relu(*, rows: int = 8, columns: int = 32) -> PrimFunc:
    x, bias = te.placeholder((rows, columns), name="X"), te.placeholder((columns,), name="bias")
    added = te.compute((rows, columns), lambda i, j: x[i, j] + bias[j], name="added")
    return te.create_prim_func(
        [x, bias, te.compute((rows, columns), lambda i, j: te.max(added[i, j], 0.0), name="out")]
    )


def bias_relu_numpy(x: Array, bias: Array) -> Array:
    return np.maximum(x + bias, 0)


def scalar_threshold(*, size: int = 32) -> PrimFunc:
    x = te.placeholder((size,), name="X")
    zero = te.compute((), lambda: const(0.0, "float32"), name="zero")
    return te.create_prim_func([x, te.compute((size,), lambda i: te.max(x[i], zero()), name="out")])


def scalar_threshold_numpy(x: Array) -> Array:
    return np.maximum(x, 0)


def row_sums(*, rows: int = 1, columns: int = 1024) -> PrimFunc:
    x = te.placeholder((rows, columns), name="X")
    return te.create_prim_func([x, topi.sum(x, axis=1)])


def row_sums_numpy(x: Array) -> Array:
    return x.sum(axis=1)


def max_pool(*, size: int = 9, channels: int = 16) -> PrimFunc:
    """NHWC 3×3 with stride 2, without TOPI's request for a schedule rule of its own."""
    x = te.placeholder((1, size, size, channels), name="X")
    out = (size - 3) // 2 + 1
    row, column = te.reduce_axis((0, 3), name="kh"), te.reduce_axis((0, 3), name="kw")
    pooled = te.compute(
        (1, out, out, channels),
        lambda n, h, w, c: te.max(x[n, h * 2 + row, w * 2 + column, c], axis=[row, column]),
        name="pooled",
    )
    return te.create_prim_func([x, pooled])


def max_pool_numpy(x: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    return windows.max(axis=(-2, -1))


def padded_conv(*, size: int = 8, channels: int = 16) -> PrimFunc:
    """NHWC 3×3 with one row and column of padding."""
    x, w = te.placeholder((1, size, size, channels), name="X"), te.placeholder((3, 3, channels, channels), name="W")
    return te.create_prim_func([x, w, topi.nn.conv2d_nhwc(x, w, 1, 1, 1)]).with_attr("layout_free_buffers", [1])


def padded_conv_numpy(x: Array, w: Array) -> Array:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows, w)


def depthwise_conv(*, size: int = 8, channels: int = 16) -> PrimFunc:
    x, w = te.placeholder((1, size, size, channels), name="X"), te.placeholder((3, 3, channels, 1), name="W")
    return te.create_prim_func([x, w, topi.nn.depthwise_conv2d_nhwc(x, w, 1, 1, 1)])


def depthwise_conv_numpy(x: Array, w: Array) -> Array:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.einsum("nhwcij,ijc->nhwc", windows, w[..., 0])


def softmax(*, rows: int = 4, columns: int = 100) -> PrimFunc:
    x = te.placeholder((rows, columns), name="X")
    return te.create_prim_func([x, topi.nn.softmax(x)])


def softmax_numpy(x: Array) -> Array:
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def global_pool(*, size: int = 7, channels: int = 32) -> PrimFunc:
    x = te.placeholder((1, size, size, channels), name="X")
    return te.create_prim_func([x, topi.divide(topi.sum(x, axis=[1, 2], keepdims=True), float(size * size))])


def global_pool_numpy(x: Array) -> Array:
    return x.mean(axis=(1, 2), keepdims=True)


def arrays(function: PrimFunc, *, seed: int = 0) -> list[Array]:
    """Random inputs and an empty output for a function."""
    random = np.random.default_rng(seed)
    shapes = [tuple(int(extent) for extent in parameter.shape) for parameter in function.params]
    inputs = [random.standard_normal(shape).astype(np.float32) for shape in shapes[:-1]]
    return [*inputs, np.full(shapes[-1], np.nan, dtype=np.float32)]
