"""Which columns tiles compute: executed on column numbers, every column that is read is where it is looked for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.windows.columns import Columns, least_tiles, plan_columns, tile_columns
from schedules.windows.rows import Window
from tests.schedules.windows.test_rows import WINDOWS, heights_of


def starts(columns: Columns, outputs: int, tiles: int) -> list[int]:
    """The column of the picture that each tile computes first."""
    width = tile_columns(outputs, tiles)
    return [min(tile * width, outputs - width) * columns.scale + columns.first for tile in range(tiles)]


@settings(max_examples=400, deadline=None)
@given(windows=st.lists(WINDOWS, min_size=2, max_size=5), width=st.integers(9, 40), tiles=st.integers(1, 5))
def test_what_is_read_is_there(windows: list[Window], width: int, tiles: int) -> None:
    widths = heights_of(windows, width)
    if min(widths) < 1 or widths[-1] < tiles:
        return
    outputs = widths[1:]
    found = plan_columns(windows, outputs, tiles=tiles)
    for tile in range(tiles):
        for index, after in enumerate(windows[1:]):
            here, reader = found[index], found[index + 1]
            start, read_from = (starts(each, outputs[-1], tiles)[tile] for each in (here, reader))
            held = {here.before + column: start + column for column in range(here.computed)}
            inside = range(outputs[index])
            assert here.leaves or all(column in inside for column in held.values())
            for column in range(reader.computed):
                for k in range(after.kernel):
                    place, wanted = (
                        column * after.stride + k * after.dilation,
                        after.first(read_from + column) + k * after.dilation,
                    )
                    assert place < here.kept
                    # Of whole rows, places outside of the picture have its padding.
                    assert held.get(place, wanted) == wanted
                    assert place in held or wanted not in inside
    written = {
        start + column for start in starts(found[-1], outputs[-1], tiles) for column in range(found[-1].computed)
    }
    assert written == set(range(outputs[-1]))


def test_a_tile_has_the_columns_of_its_windows() -> None:
    windows = [Window(kernel=1), Window(kernel=3, before=1), Window(kernel=3, stride=2, before=1)]
    first, second, last = plan_columns(windows, [36, 36, 18], tiles=3)
    assert (last.computed, last.kept, last.leaves) == (6, 6, False)
    assert (second.computed, second.scale, second.first, second.leaves) == (13, 2, -1, True)
    assert (first.computed, first.scale, first.first, first.leaves) == (15, 2, -2, True)


def test_there_are_no_more_tiles_than_it_takes() -> None:
    assert [least_tiles(9, tiles) for tiles in (1, 2, 3, 4, 5, 9, 20)] == [1, 2, 3, 3, 5, 9, 9]
