"""Winograd's minimal filtering for 3×3 convolutions with stride 1: F(4×4, 3×3), in three steps.

A tile of 4×4 outputs needs 6×6 inputs. Both transformed, the convolution of a tile becomes 36 products instead of 144,
and over all tiles and channels 36 matrix products (Lavin and Gray, "Fast algorithms for convolutional neural networks",
CVPR 2016; the matrices are theirs)::

    V = Bᵀ d B for every input tile d        (36, tiles, input channels)
    M = V · U  for each of the 36 positions  (36, tiles, output channels); U = G g Gᵀ of the weights, at build time
    Y = Aᵀ M A for every tile                back in NHWC

A quarter of the multiplications, at the price of two passes over memory and of weights four times as large: whether it
is faster is measured, shape by shape. The transforms are written as linear combinations chosen by an index, which
unrolling turns into additions (`schedules.templates.winograd`); the product is an ordinary matrix product to be tiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te
from tvm.ir import IRModule
from tvm.tirx import all, const, if_then_else

from schedules.blocks import blocks_of

Array = npt.NDArray[Any]

OUTPUT_TILE = 4
INPUT_TILE = OUTPUT_TILE + 2
_POSITIONS = INPUT_TILE**2
INPUT_MATRIX = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
"""Bᵀ."""
OUTPUT_MATRIX = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
"""Aᵀ."""
_WEIGHT_MATRIX = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
"""G."""

GATHER, INPUT_ROWS, INPUT = "winograd_gather", "winograd_input_rows", "winograd_input"
PRODUCT = "winograd_product"
OUTPUT_ROWS, OUTPUT = "winograd_output_rows", "winograd_output"
"""Names of the blocks."""
WINOGRAD = "winograd"
"""This way to compute a convolution, among others."""

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, order=True)
class ConvolutionShape:
    """A 3×3 convolution with stride 1, by the extents of its output and its input channels."""

    batch: int
    rows: int
    columns: int
    inputs: int
    outputs: int

    @property
    def tiles(self) -> tuple[int, int]:
        """Tiles along rows and columns; the last ones may reach beyond the edge."""
        return -(-self.rows // OUTPUT_TILE), -(-self.columns // OUTPUT_TILE)

    def __str__(self) -> str:
        batch = f"{self.batch}×" if self.batch > 1 else ""
        return f"{batch}{self.rows}×{self.columns}×{self.inputs}→{self.outputs}"


def transformed_weights(weights: Array) -> Array:
    """U = G g Gᵀ of HWIO weights (3, 3, inputs, outputs): shape (36, inputs, outputs), computed in float64."""
    wide = np.einsum("ar,rsio,bs->abio", _WEIGHT_MATRIX, weights.astype(np.float64), _WEIGHT_MATRIX, optimize=True)
    return wide.reshape(_POSITIONS, *weights.shape[2:]).astype(weights.dtype)


def input_transform(data: te.Tensor, *, shape: ConvolutionShape, top: int, left: int) -> te.Tensor:
    """V of an NHWC tensor, zeros beyond its edges; ``top`` and ``left`` are the convolution's padding."""
    _, height, width, channels = (int(extent) for extent in data.shape)
    down, across = shape.tiles
    tiles = shape.batch * down * across

    def gathered(r: Any, s: Any, tile: Any, c: Any) -> Any:
        y = tile // across % down * OUTPUT_TILE + r - top
        x = tile % across * OUTPUT_TILE + s - left
        inside = all(y >= 0, y < height, x >= 0, x < width)
        return if_then_else(inside, data[tile // (down * across), y, x, c], const(0.0, data.dtype))

    gather = te.compute((INPUT_TILE, INPUT_TILE, tiles, channels), gathered, name=GATHER)
    rows = te.compute(
        (INPUT_TILE, INPUT_TILE, tiles, channels),
        lambda a, s, tile, c: _combination(INPUT_MATRIX, a, lambda r: gather[r, s, tile, c]),
        name=INPUT_ROWS,
    )
    return te.compute(
        (_POSITIONS, tiles, channels),
        lambda k, tile, c: _combination(INPUT_MATRIX, k % INPUT_TILE, lambda s: rows[k // INPUT_TILE, s, tile, c]),
        name=INPUT,
    )


def product(data: te.Tensor, weights: te.Tensor, *, shape: ConvolutionShape) -> te.Tensor:
    """M: for each of the 36 positions the product of (tiles, inputs) and (inputs, outputs)."""
    positions, tiles, inputs = data.shape
    ci = te.reduce_axis((0, inputs), name="ci")
    return te.compute(
        (positions, tiles, shape.outputs),
        lambda k, tile, co: te.sum(data[k, tile, ci] * weights[k, ci, co], axis=ci),
        name=PRODUCT,
    )


def output_transform(products: te.Tensor, *, shape: ConvolutionShape) -> te.Tensor:
    """Y in NHWC; what the last tiles compute beyond the edge is dropped."""
    _, tiles, outputs = products.shape
    down, across = shape.tiles
    rows = te.compute(
        (OUTPUT_TILE, INPUT_TILE, tiles, outputs),
        lambda i, b, tile, c: _combination(OUTPUT_MATRIX, i, lambda a: products[a * INPUT_TILE + b, tile, c]),
        name=OUTPUT_ROWS,
    )

    def output(n: Any, h: Any, w: Any, c: Any) -> Any:
        tile = (n * down + h // OUTPUT_TILE) * across + w // OUTPUT_TILE
        return _combination(OUTPUT_MATRIX, w % OUTPUT_TILE, lambda b: rows[h % OUTPUT_TILE, b, tile, c])

    extents = (shape.batch, shape.rows, shape.columns, shape.outputs)
    return te.compute(extents, output, name=OUTPUT)


def transform_flops(mod: IRModule) -> float | None:
    """Arithmetic of a transform; None where ``mod`` is none. TVM's estimate counts every alternative of a choice."""
    for block in blocks_of(mod["main"].body):
        if block.name_hint in (INPUT_ROWS, OUTPUT_ROWS):
            matrix = INPUT_MATRIX if block.name_hint == INPUT_ROWS else OUTPUT_MATRIX
            *_, tiles, channels = (int(axis.dom.extent) for axis in block.iter_vars)
            terms = sum(coefficient != 0 for row in matrix for coefficient in row)
            return 2.0 * terms * (INPUT_TILE + len(matrix)) * tiles * channels
    return None


def _combination(matrix: Matrix, row: Any, load: Callable[[int], Any]) -> Any:
    """Σⱼ matrix[row, j] · load(j), as a choice over ``row``: a constant one leaves one sum, without the zeros."""
    sums = [_sum(coefficients, load) for coefficients in matrix]
    chosen = sums[-1]
    for number in reversed(range(len(sums) - 1)):
        chosen = if_then_else(row == number, sums[number], chosen)
    return chosen


def _sum(coefficients: tuple[int, ...], load: Callable[[int], Any]) -> Any:
    terms = [(coefficient, load(j)) for j, coefficient in enumerate(coefficients) if coefficient]
    # The positive ones first, so that nothing is subtracted from nothing.
    terms.sort(key=lambda term: -term[0])
    total: Any = None
    for coefficient, value in terms:
        scaled = value if abs(coefficient) == 1 else value * const(float(abs(coefficient)), value.dtype)
        total = scaled if total is None else total + scaled if coefficient > 0 else total - scaled
    return total
