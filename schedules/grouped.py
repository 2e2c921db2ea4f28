"""Grouped 1×1 convolutions, with each group's output channels padded to whole vectors.

A group of 34 or 68 output channels is no multiple of a vector: a loop over all channels that is cut into vectors
crosses the groups, and one over a group's channels leaves lanes empty. Here the sums of a group have a padded buffer of
their own, and writing them out drops the padding::

    S[p, g, o] = Σᵢ x[p, g * I + i] · w[g, i, o]    o up to a whole number of vectors, where w is zero beyond O
    y[p, c]    = S[p, c // O, c % O]                or S[p, c % G, c // G]: the channels shuffled

The shuffle is the one that ShuffleNet puts behind its convolutions (Zhang et al., CVPR 2018): reading the sums in
another order replaces a pass over memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import te

SUMS, OUTPUT, SHUFFLED_OUTPUT = "grouped_sums", "grouped_output", "shuffled_output"
"""Names of the blocks."""


@dataclass(frozen=True, kw_only=True)
class GroupedShape:
    """A grouped 1×1 convolution: its groups, channels per group, the steps from pixel to pixel, the elements of a
    vector, and whether its output channels are written shuffled."""

    groups: int
    inputs: int
    outputs: int
    stride_rows: int
    stride_columns: int
    lanes: int
    shuffled: bool

    @property
    def padded_outputs(self) -> int:
        return -(-self.outputs // self.lanes) * self.lanes


def padded_weights(weights: npt.NDArray[Any], shape: GroupedShape) -> npt.NDArray[Any]:
    """HWIO weights (1, 1, inputs, groups · outputs) as (groups, inputs, vectors, lanes)."""
    by_group = weights.reshape(shape.inputs, shape.groups, shape.outputs).transpose(1, 0, 2)
    padded = np.pad(by_group, ((0, 0), (0, 0), (0, shape.padded_outputs - shape.outputs)))
    return padded.reshape(shape.groups, shape.inputs, -1, shape.lanes)


def grouped_convolution(data: te.Tensor, weights: te.Tensor, *, shape: GroupedShape) -> te.Tensor:
    """NHWC in, NHWC out; ``weights`` as from `padded_weights`."""
    batch, height, width, _ = (int(extent) for extent in data.shape)
    rows, columns = -(-height // shape.stride_rows), -(-width // shape.stride_columns)
    ci = te.reduce_axis((0, shape.inputs), name="ci")

    def summed(n: Any, h: Any, w: Any, g: Any, vector: Any, lane: Any) -> Any:
        read = data[n, h * shape.stride_rows, w * shape.stride_columns, g * shape.inputs + ci]
        return te.sum(read * weights[g, ci, vector, lane], axis=ci)

    extents = (batch, rows, columns, shape.groups, shape.padded_outputs // shape.lanes, shape.lanes)
    sums = te.compute(extents, summed, name=SUMS)

    def written(n: Any, h: Any, w: Any, c: Any) -> Any:
        g, o = (c % shape.groups, c // shape.groups) if shape.shuffled else (c // shape.outputs, c % shape.outputs)
        # Spelled in vectors and lanes, so that whole vectors are seen to be needed, padding included.
        return sums[n, h, w, g, o // shape.lanes, o % shape.lanes]

    name = SHUFFLED_OUTPUT if shape.shuffled else OUTPUT
    return te.compute((batch, rows, columns, shape.groups * shape.outputs), written, name=name)
