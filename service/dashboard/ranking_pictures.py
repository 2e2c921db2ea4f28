"""The pictures of a cost model: predicted against measured, and its pairwise accuracy from version to version.

Both axes of the first are latencies in times the best of the workload, on a logarithmic scale: a schedule that was
predicted exactly lies on the diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from service.dashboard.figures import significant
from service.dashboard.ranking import of_hundred, slowness
from service.schemas.cost_models import HeldOutPointSchema

# In CSS pixels at full size: the side of the plot, and the room for ticks and titles around it.
_SIDE, _LEFT, _TOP, _RIGHT, _BOTTOM = 320, 48, 18, 12, 44
_DOT = 2.5
_TREND_WIDTH, _TREND_HEIGHT, _TREND_MARGIN = 160, 32, 4


def scatter(points: Sequence[HeldOutPointSchema]) -> Markup:
    """The SVG of held-out points, or empty markup without any."""
    if not points:
        return Markup("")
    # log2 of slowness: 0 is the best of the workload, 1 twice its latency.
    places = [(-point.measured_log2, -point.predicted_log2) for point in points]
    every = [value for place in places for value in place]
    low = min(0.0, math.floor(4 * min(every)) / 4) - 0.125
    high = max(1.0, math.ceil(4 * max(every)) / 4) + 0.125

    def along(value: float) -> float:
        return _SIDE * (value - low) / (high - low)

    def x(value: float) -> str:
        return _n(_LEFT + along(value))

    def y(value: float) -> str:
        return _n(_TOP + _SIDE - along(value))

    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    base, end = _TOP + _SIDE, _LEFT + _SIDE
    parts = []
    for tick in range(math.ceil(low), math.floor(high) + 1):
        parts.append(f'<path class="grid" d="M{x(tick)} {_TOP}V{base}M{_LEFT} {y(tick)}H{end}"/>')
        name = f"{2.0**tick:g}×"
        parts.append(f'<text x="{x(tick)}" y="{base + 16}" text-anchor="middle">{name}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{_n(float(y(tick)) + 4)}" text-anchor="end">{name}</text>')
    parts.append(f'<path class="frame" d="M{_LEFT} {_TOP}V{base}H{end}"/>')
    parts.append(f'<path class="diagonal" d="M{_LEFT} {base}L{end} {_TOP}"/>')
    for point, (measured, predicted) in zip(points, places, strict=True):
        parts.append(
            f'<circle class="dot" cx="{x(measured)}" cy="{y(predicted)}" r="{_DOT}">'
            f"<title>{_told(point)}</title></circle>"
        )
    # Beside the end of the diagonal, outside the plot: inside, dots may lie anywhere.
    parts.append(f'<text x="{end}" y="{_TOP - 6}" text-anchor="end">predicted as measured</text>')
    middle = _TOP + _SIDE / 2
    parts.append(
        f'<text class="axis" x="{_n(_LEFT + _SIDE / 2)}" y="{base + 37}" text-anchor="middle">'
        "Measured latency ÷ the workload’s best</text>"
        f'<text class="axis" x="12" y="{_n(middle)}" text-anchor="middle" transform="rotate(-90 12 {_n(middle)})">'
        "Predicted latency ÷ the workload’s best</text>"
    )
    workloads = len({point.workload for point in points})
    title = (
        f"Predicted against measured latency of {len(points)} schedules of {workloads} workloads that were left out "
        "of training; the table beside it has the same figures"
    )
    return Markup(
        f'<svg class="scatter" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'aria-label="{title}">{"".join(parts)}</svg>'
    )


def trend(accuracies: Sequence[tuple[int, float]]) -> Markup:
    """A line through the pairwise accuracy of versions (number, share; oldest first), or empty markup for fewer than
    two. The scale ends at 100 % and starts at the full 10 % below the worst."""
    if len(accuracies) < 2:
        return Markup("")
    values = [accuracy for _, accuracy in accuracies]
    low = min(math.floor(10 * min(values)) / 10, 0.9)
    room = _TREND_WIDTH - 2 * _TREND_MARGIN, _TREND_HEIGHT - 2 * _TREND_MARGIN
    places = [
        (
            _n(_TREND_MARGIN + room[0] * index / (len(values) - 1)),
            _n(_TREND_MARGIN + room[1] * (1 - (value - low) / (1 - low))),
        )
        for index, value in enumerate(values)
    ]
    line, last = "L".join(f"{x} {y}" for x, y in places), places[-1]
    told = ", ".join(f"version {version} {of_hundred(value)}" for version, value in accuracies[-10:])
    return Markup(
        f'<svg class="trend" role="img" width="{_TREND_WIDTH}" height="{_TREND_HEIGHT}" '
        f'viewBox="0 0 {_TREND_WIDTH} {_TREND_HEIGHT}" aria-label="Pairwise accuracy: {told}">'
        f'<path class="line" d="M{line}"/><circle class="last" cx="{last[0]}" cy="{last[1]}" r="{_DOT}"/></svg>'
    )


def _told(point: HeldOutPointSchema) -> str:
    measured, predicted = (significant(slowness(value)) for value in (point.measured_log2, point.predicted_log2))
    return f"Workload {point.workload + 1}: measured {measured}×, predicted {predicted}×"


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
