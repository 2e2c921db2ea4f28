"""The arithmetic of rows: what a step needs is there, in its place, and computed as often as it should be."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedules.windows.rows import Mode, RowPlan, Window, computed_rows, plan_rows

WINDOWS = st.builds(
    Window,
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.sampled_from([1, 1, 2, 3]),
    dilation=st.sampled_from([1, 1, 2]),
    before=st.integers(0, 2),
)


def heights_of(windows: list[Window], height: int) -> list[int]:
    """Rows of the input and of every output, with one row of padding at the bottom."""
    heights = [height]
    for window in windows:
        heights.append((heights[-1] + window.before + 1 - window.reach) // window.stride + 1)
    return heights


class Rings:
    """Executes a plan on row numbers: what is in which place of each ring."""

    def __init__(self, plan: RowPlan, windows: list[Window], heights: list[int]) -> None:
        self.plan, self.windows, self.heights = plan, windows, heights
        self.computed: list[Counter[int]] = [Counter() for _ in plan.rings]
        self.written: list[int] = []

    def run(self, strip: int) -> None:
        plan, start = self.plan, strip * self.plan.strip_rows
        held: list[dict[int, int]] = [{} for _ in plan.rings]
        for step in range(-plan.warm_up, plan.steps):
            for index, ring in enumerate(plan.rings):
                if step < -ring.warm_up:
                    continue
                end = start * ring.scale + ring.advance * step + ring.offset
                low = max(end - ring.produced, start * ring.scale + ring.first)
                for row in range(low, min(end, (start + plan.strip_rows) * ring.scale + ring.last)):
                    if 0 <= row < self.heights[index + 1]:
                        self.computed[index][row] += 1
                        self.reads(index, row, held)
                    held[index][row % ring.rows] = row
            for row in range(start + step * plan.rows_per_step, start + (step + 1) * plan.rows_per_step):
                if step >= 0 and row < self.heights[-1]:
                    self.written.append(row)
                    self.reads(len(plan.rings), row, held)

    def reads(self, index: int, row: int, held: list[dict[int, int]]) -> None:
        if index == 0:
            return
        for k in range(self.windows[index].kernel):
            read = self.windows[index].first(row) + k * self.windows[index].dilation
            if 0 <= read < self.heights[index]:
                assert held[index - 1].get(read % self.plan.rings[index - 1].rows) == read


@settings(max_examples=400, deadline=None)
@given(
    windows=st.lists(WINDOWS, min_size=2, max_size=5),
    height=st.integers(9, 40),
    rows_per_step=st.integers(1, 6),
    strips=st.integers(1, 4),
    data=st.data(),
)
def test_what_is_read_is_there(
    windows: list[Window], height: int, rows_per_step: int, strips: int, data: st.DataObject
) -> None:
    heights = heights_of(windows, height)
    if min(heights) < 1:
        return
    modes = [data.draw(st.sampled_from(list(Mode))) for _ in windows[1:]]
    plan = plan_rows(windows, output_rows=heights[-1], rows_per_step=rows_per_step, strips=strips, modes=modes)
    rings = Rings(plan, windows, heights)
    for strip in range(plan.strips):
        before = [Counter(each) for each in rings.computed]
        rings.run(strip)
        for index, ring in enumerate(plan.rings):
            new = rings.computed[index] - before[index]
            assert sorted(new.elements()) == sorted(computed_rows(plan, ring, height=heights[index + 1], strip=strip))
            if all(mode is Mode.ROLL for mode in modes[index:]):
                assert max(new.values(), default=0) <= 1
    assert sorted(rings.written) == list(range(heights[-1]))


def test_a_ring_has_the_rows_of_one_window() -> None:
    plan = plan_rows([Window(kernel=1), Window(kernel=3, before=1)], output_rows=56, rows_per_step=1, strips=1)
    (ring,) = plan.rings
    assert (ring.rows, ring.advance, ring.produced, ring.warm_up) == (3, 1, 1, 2)


def test_a_window_with_gaps_rolls_nothing() -> None:
    plan = plan_rows([Window(kernel=1), Window(kernel=2, stride=3)], output_rows=8, rows_per_step=1, strips=1)
    assert (plan.rings[0].rows, plan.rings[0].advance, plan.rings[0].produced) == (2, 3, 2)
    assert computed_rows(plan, plan.rings[0], height=24, strip=0)[:4] == [0, 1, 3, 4]


def test_strips_are_whole_steps() -> None:
    windows = [Window(kernel=1), Window(kernel=3, before=1)]
    plan = plan_rows(windows, output_rows=10, rows_per_step=4, strips=3)
    assert (plan.strips, plan.strip_rows, plan.steps, plan.rows_per_step) == (3, 4, 1, 4)
    assert plan_rows(windows, output_rows=3, rows_per_step=9, strips=5).rows_per_step == 1


@pytest.mark.parametrize("wrong", [{"output_rows": 0}, {"rows_per_step": 0}, {"strips": 0}, {"modes": []}])
def test_numbers_that_make_no_plan_are_refused(wrong: dict[str, object]) -> None:
    numbers = {"output_rows": 8, "rows_per_step": 1, "strips": 1} | wrong
    with pytest.raises(ValueError, match=r"at least 1|intermediates"):
        plan_rows([Window(kernel=1), Window(kernel=3)], **numbers)  # type: ignore[arg-type]
