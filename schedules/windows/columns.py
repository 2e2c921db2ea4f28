"""Which columns of every tensor of a chain are computed and kept: whole rows, or tile by tile. Integers only, no TVM.

Tiles make rings narrower and compute the columns at their seams again. Each tile is computed from the first row to the
last before the next one begins, in the same rings (partial execution in patches, as MCUNetV2, Lin et al., NeurIPS 2021,
has it, with rings inside of the patches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from schedules.windows.rows import Window


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that one stage writes in a tile.

    ``computed`` columns from ``scale`` × the tile's first output column + ``first`` on; behind that, a tensor in a ring
    has them from column ``before`` on, among ``kept`` columns. Of whole rows only the columns inside of the picture are
    computed, and ``kept`` counts the next stage's padding too. Of tiles all are computed, and those outside of the
    picture, if a tile ``leaves`` it, filled with the padding.
    """

    computed: int
    kept: int
    before: int = 0
    scale: int = 1
    first: int = 0
    leaves: bool = False


def tile_columns(output_columns: int, tiles: int) -> int:
    """Columns of the output that each tile computes; the last tile may begin inside of the one before."""
    return ceil(output_columns / tiles)


def least_tiles(output_columns: int, tiles: int) -> int:
    """As many tiles, or fewer that are as wide."""
    return ceil(output_columns / tile_columns(output_columns, min(tiles, output_columns)))


def plan_columns(windows: Sequence[Window], outputs: Sequence[int], *, tiles: int) -> tuple[Columns, ...]:
    """The columns of all stages of a chain, from their windows across and the columns of the pictures they write."""
    return _whole(windows, outputs) if tiles == 1 else _tiled(windows, outputs, tile_columns(outputs[-1], tiles))


def _whole(windows: Sequence[Window], outputs: Sequence[int]) -> tuple[Columns, ...]:
    found: list[Columns] = []
    for columns, after, read_by in zip(outputs, windows[1:], outputs[1:], strict=False):
        kept = after.rows(read_by)
        # A next stage with a stride may not read the last columns.
        found.append(Columns(computed=min(columns, kept - after.before), kept=kept, before=after.before))
    return (*found, Columns(computed=outputs[-1], kept=outputs[-1]))


def _tiled(windows: Sequence[Window], outputs: Sequence[int], count: int) -> tuple[Columns, ...]:
    found = [Columns(computed=count, kept=count)]
    for after, columns in zip(reversed(windows[1:]), reversed(outputs[:-1]), strict=True):
        next_one = found[-1]
        count, first = after.rows(next_one.computed), after.first(next_one.first)
        scale = next_one.scale * after.stride
        last = (outputs[-1] - found[0].computed) * scale + first + count
        leaves = first < 0 or last > columns
        found.append(Columns(computed=count, kept=count, scale=scale, first=first, leaves=leaves))
    return tuple(reversed(found))
