"""Which rows of every tensor of a chain are computed, kept and computed again, step by step. Integers only, no TVM.

A chain of windowed operators (convolution, pooling) is computed ``rows_per_step`` rows of its output at a time. In
every step each intermediate tensor gets the rows that the next operator needs and does not have yet, in a ring of
as many rows as that operator's window reaches over: row ``r`` lives at place ``r % ring_rows``. Storage folding in
Halide (Ragan-Kelley et al., PLDI 2013) does the same with inferred bounds; here they are written down.

The output's height is cut into strips, which may run in parallel, each with rings of its own; what two strips both need
at their seam is computed by both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """What happens to an intermediate tensor between two steps."""

    ROLL = "roll"
    RECOMPUTE = "recompute"


@dataclass(frozen=True, kw_only=True)
class Window:
    """How an operator reads rows (or columns): output row ``r`` reads ``r * stride - before + k * dilation``."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0

    @property
    def reach(self) -> int:
        """Rows from the first to the last one that one output row reads."""
        return (self.kernel - 1) * self.dilation + 1

    def first(self, row: int) -> int:
        """The first row that an output row reads; it may lie outside of the picture."""
        return row * self.stride - self.before

    def rows(self, count: int) -> int:
        """Rows that ``count`` neighbouring output rows read, from the first to the last one."""
        return (count - 1) * self.stride + self.reach


@dataclass(frozen=True, kw_only=True)
class Ring:
    """The rows of one intermediate tensor.

    In step ``t`` of a strip that begins at output row ``s``, rows ``[end - produced, end)`` are computed, where ``end``
    is ``s * scale + advance * t + offset``, except those before ``s * scale + first`` (no row of the strip needs them)
    and at or after ``(s + strip rows) * scale + last``. ``rows`` are kept. All steps from ``-warm_up`` on count: those
    before 0 fill the ring.
    """

    rows: int
    advance: int
    produced: int
    scale: int
    offset: int
    first: int
    last: int
    warm_up: int


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """The rings of a chain's intermediates, in order, and its steps: ``steps`` of ``rows_per_step`` output rows in each
    of ``strips``, which are ``strip_rows`` high, the last one perhaps less. All steps of a strip are done for one of
    ``tiles`` after the other, each a part of the output's columns (`schedules.windows.columns`)."""

    rings: tuple[Ring, ...]
    rows_per_step: int
    strips: int
    strip_rows: int
    steps: int
    tiles: int = 1

    @property
    def warm_up(self) -> int:
        """Steps before the first output row of a strip."""
        return max((ring.warm_up for ring in self.rings), default=0)


def plan_rows(
    windows: Sequence[Window],
    *,
    output_rows: int,
    rows_per_step: int,
    strips: int,
    tiles: int = 1,
    modes: Sequence[Mode] | None = None,
) -> RowPlan:
    """The rows of a chain of ``len(windows)`` operators, whose intermediates are one less; all roll without ``modes``.

    Strips are as high as it takes, in whole steps; there may be fewer than asked for, and a step has no more rows than
    a strip. Raises ValueError for numbers that make no plan.
    """
    modes = [Mode.ROLL] * (len(windows) - 1) if modes is None else list(modes)
    if len(modes) != len(windows) - 1:
        raise ValueError(f"{len(windows)} operators have {len(windows) - 1} intermediates, not {len(modes)}")
    if min(output_rows, rows_per_step, strips, tiles) < 1:
        raise ValueError("rows, rows per step, strips and tiles are at least 1")
    strips = min(strips, output_rows)
    rows_per_step = min(rows_per_step, math.ceil(output_rows / strips))
    strip_rows = rows_per_step * math.ceil(math.ceil(output_rows / strips) / rows_per_step)
    rings: list[Ring] = []
    produced, advance, scale, first, offset, last, warm_up = rows_per_step, rows_per_step, 1, 0, rows_per_step, 0, 0
    for window, mode in zip(reversed(windows[1:]), reversed(modes), strict=True):
        rows = window.rows(produced)
        advance, scale = advance * window.stride, scale * window.stride
        first = window.first(first)
        # The last row of the window of the last output row, and one.
        offset = window.first(offset - 1) + window.reach
        last = window.first(last - 1) + window.reach
        produced = min(advance, rows) if mode is Mode.ROLL else rows
        # The ring begins to fill no later than the next operator begins to read it.
        if mode is Mode.ROLL:
            warm_up = max(warm_up, math.ceil((offset - produced - first) / advance))
        rings.append(
            Ring(
                rows=rows,
                advance=advance,
                produced=produced,
                scale=scale,
                offset=offset,
                first=first,
                last=last,
                warm_up=warm_up,
            )
        )
    return RowPlan(
        rings=tuple(reversed(rings)),
        rows_per_step=rows_per_step,
        strips=math.ceil(output_rows / strip_rows),
        strip_rows=strip_rows,
        steps=strip_rows // rows_per_step,
        tiles=tiles,
    )


def computed_rows(plan: RowPlan, ring: Ring, *, height: int, strip: int) -> list[int]:
    """The rows inside a picture of that height that a strip computes, in order, as often as it computes them."""
    start = strip * plan.strip_rows
    rows: list[int] = []
    for step in range(-ring.warm_up, plan.steps):
        end = start * ring.scale + ring.advance * step + ring.offset
        low = max(end - ring.produced, start * ring.scale + ring.first, 0)
        high = min(end, (start + plan.strip_rows) * ring.scale + ring.last, height)
        rows += range(low, high)
    return rows
