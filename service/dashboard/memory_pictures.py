"""The pictures of a job's memory: latency against peak, what is alive from function to function, and the windows of a
chain. Each is made from the bundle's manifest or from what the API answers, and has its table beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from service.dashboard.figures import latency, size
from service.schemas.artifacts import FrontPoint

# In CSS pixels at full size: the plot, and the room for ticks and titles around it.
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 520, 220, 64, 20, 20, 44
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B"))
# Of the drawing of windows: the tallest tensor, the width of each, the room between two for the operator, and for text.
_TALL, _WIDE, _GAP, _ABOVE, _BELOW, _SIDE = 112, 44, 64, 20, 52, 14
_LEAST_BAND = 3.0
_LINE = 14
"""Between two lines of text."""
_NAMES = {
    "copy": "copy",
    "convolution": "conv",
    "depthwise": "depthwise",
    "max_pool": "max pool",
    "average_pool": "avg pool",
}


def front_chart(points: Sequence[FrontPoint], limit_bytes: int | None) -> Markup:
    """The SVG of latency against peak memory: a step line through what the search knows, a dot for what was shipped and
    measured, and the limit; empty markup for fewer than two points of the front."""
    front = [(point.peak_bytes, point.estimated_us, point.name) for point in points if point.estimated_us]
    known = [(peak, us, name) for peak, us, name in front if peak is not None and us is not None]
    if len(known) < 2:
        return Markup("")
    shipped = next(((each.peak_bytes, each.latency_us) for each in points if each.shipped and each.latency_us), None)
    every = [(peak, us) for peak, us, _ in known]
    if shipped is not None and shipped[0] is not None and shipped[1] is not None:
        every.append((shipped[0], shipped[1]))
    plot = _Plot(
        right=1.05 * max([peak for peak, _ in every] + [limit_bytes or 0]), top=1.1 * max(us for _, us in every)
    )
    parts = plot.frame("Peak memory beside weights and inputs", "Latency")
    path = f"M{plot.x(known[0][0])} {_TOP}V{plot.y(known[0][1])}"
    path += "".join(f"H{plot.x(peak)}V{plot.y(us)}" for peak, us, _ in known[1:])
    parts.append(f'<path class="line" d="{path}H{_LEFT + _WIDTH}"/>')
    parts += [
        f'<circle class="dot" cx="{plot.x(peak)}" cy="{plot.y(us)}" r="3.5">'
        f"<title>{escape(name)}: {size(peak)}, {latency(us)} estimated</title></circle>"
        for peak, us, name in known
    ]
    if limit_bytes:
        x, is_right = plot.x(limit_bytes), plot.share(limit_bytes) > 0.7
        parts.append(f'<path class="limit" d="M{x} {_TOP}V{_TOP + _HEIGHT}"/>')
        place = f'x="{float(x) - 5:g}" text-anchor="end"' if is_right else f'x="{float(x) + 5:g}"'
        parts.append(f'<text {place} y="{_TOP + 11}">limit {size(limit_bytes)}</text>')
    if shipped is not None and shipped[0] is not None and shipped[1] is not None:
        x, y = plot.x(shipped[0]), plot.y(shipped[1])
        place = f'x="{float(x) - 9:g}" text-anchor="end"' if plot.share(shipped[0]) > 0.6 else f'x="{float(x) + 9:g}"'
        parts.append(f'<circle class="chosen" cx="{x}" cy="{y}" r="5"/>')
        parts.append(f'<text class="chosen-name" {place} y="{float(y) + 18:g}">this build, measured</text>')
    title = f"Latency against peak memory: {len(known)} ways of building the network; the table below has the figures"
    return _svg("memory-front", _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM, title, parts)


def timeline_chart(before: Sequence[int], after: Sequence[int]) -> Markup:
    """The SVG of the bytes that are alive in every function, from the network's input to its output: of the network
    without windows as a line, of this build as an area. Empty markup without any."""
    if not after:
        return Markup("")
    plot = _Plot(right=1.0, top=1.2 * max([*before, *after, 1]), is_bytes=True)
    parts = plot.frame("From input to output, function by function", "Bytes alive")
    parts.append(f'<path class="area" d="{_steps(plot, after)}V{_TOP + _HEIGHT}H{_LEFT}Z"/>')
    parts.append(f'<path class="line" d="{_steps(plot, after)}"/>')
    named = [(after, f"this build, at most {size(max(after))}")]
    if before and list(before) != list(after):
        parts.append(f'<path class="usual" d="{_steps(plot, before)}"/>')
        named.append((before, f"without windows, at most {size(max(before))}"))
    heights = [float(plot.y(max(values))) - 6 for values, _ in named]
    if len(heights) > 1 and abs(heights[0] - heights[1]) < _LINE:
        heights[1] = heights[0] - _LINE  # one above the other, where the highest are equally high
    for (values, text), height in zip(named, heights, strict=True):
        at = (values.index(max(values)) + 0.5) / len(values)
        anchor = "start" if at < 0.3 else "end" if at > 0.7 else "middle"
        parts.append(f'<text x="{plot.x(at)}" y="{height:g}" text-anchor="{anchor}">{text}</text>')
    title = "Bytes alive from function to function" + (", without windows and in this build" if len(named) > 1 else "")
    return _svg("memory-timeline", _LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BOTTOM, title, parts)


def windows_drawing(part: Mapping[str, Any]) -> Markup:
    """The SVG of a chain's windows: every tensor as high as it has rows, and on it the rows that are kept at a time, in
    each strip, as wide as a tile; the operators are between them."""
    operators = part["operators"]
    tensors = [(*part["source"], None, None)] + [
        (*each["output"], each["ring_rows"], each["ring_bytes"]) for each in operators
    ]
    most_rows = max(rows for rows, *_ in tensors)
    strips, tiles, parts = int(part["strips"]), int(part.get("tiles", 1)), []
    narrow = _n(_WIDE / tiles)
    for index, (rows, columns, channels, ring_rows, ring_bytes) in enumerate(tensors):
        x, tall = _SIDE + index * (_WIDE + _GAP), _TALL * rows / most_rows
        y, middle = _ABOVE + (_TALL - tall) / 2, _SIDE + index * (_WIDE + _GAP) + _WIDE / 2
        is_whole = ring_rows is None
        parts.append(
            f'<rect class="{"whole" if is_whole else "gone"}" x="{x}" y="{_n(y)}" width="{_WIDE}" height="{_n(tall)}"/>'
        )
        for strip in range(strips):
            top = y + tall * strip / strips
            if strip:
                parts.append(f'<path class="seam" d="M{x} {_n(top)}h{_WIDE}"/>')
            if not is_whole:
                high = min(max(tall * ring_rows / rows, _LEAST_BAND), tall / strips)
                parts.append(
                    f'<rect class="band" x="{x}" y="{_n(top + 0.35 * (tall / strips - high))}" width="{narrow}" '
                    f'height="{_n(high)}"/>'
                )
        for tile in range(1, tiles):
            parts.append(f'<path class="seam" d="M{_n(x + _WIDE * tile / tiles)} {_n(y)}v{_n(tall)}"/>')
        lines = [f"{rows}×{columns}×{channels}"]
        lines += ["whole", size(4 * rows * columns * channels)] if is_whole else [_rows(ring_rows), size(ring_bytes)]
        parts += [
            f'<text x="{_n(middle)}" y="{_ABOVE + _TALL + 14 + 14 * line}" text-anchor="middle">{text}</text>'
            for line, text in enumerate(lines)
        ]
        if index:
            parts += _arrow(operators[index - 1], x - _GAP / 2)
    title = (
        f"Windows of {len(operators)} operators in {strips} strip{'' if strips == 1 else 's'}"
        f"{'' if tiles == 1 else f' of {tiles} tiles'}, "
        f"{_rows(part['rows_per_step'])} of the output a step"
    )
    width = 2 * _SIDE + len(tensors) * _WIDE + (len(tensors) - 1) * _GAP
    return _svg("windows", width, _ABOVE + _TALL + _BELOW, title, parts)


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _arrow(operator: Mapping[str, Any], center: float) -> list[str]:
    """An operator between what it reads and what it writes: its name above, kernel and stride below."""
    name = escape(_NAMES.get(operator["operator"], operator["operator"]))
    rows, columns = operator["kernel"]
    stride = f" /{operator['stride']}" if operator["stride"] > 1 else ""
    window = "" if operator["operator"] == "copy" else f"{rows}×{columns}{stride}"
    level, text = _ABOVE + _TALL / 2, f'<text class="operator" text-anchor="middle" x="{_n(center)}"'
    return [
        f'<path class="arrow" d="M{_n(center - _GAP / 2 + 6)} {_n(level)}h{_GAP - 12}m-4 -3l4 3l-4 3"/>',
        f'{text} y="{_n(level - 7)}">{name}</text>{text} y="{_n(level + 16)}">{window}</text>',
    ]


class _Plot:
    """A plot from 0 to ``right`` and to ``top``: bytes along the axis that has them, µs along the other."""

    def __init__(self, *, right: float, top: float, is_bytes: bool = False) -> None:
        self._right, self._top, self._is_bytes = right, top, is_bytes

    def share(self, value: float) -> float:
        return value / self._right

    def x(self, value: float) -> str:
        return _n(_LEFT + _WIDTH * self.share(value))

    def y(self, value: float) -> str:
        return _n(_TOP + _HEIGHT * (1 - value / self._top))

    def frame(self, below: str, beside: str) -> list[str]:
        base, end = _TOP + _HEIGHT, _LEFT + _WIDTH
        parts = []
        unit, scale = _byte_unit(self._top) if self._is_bytes else ("µs", 1.0)
        for tick in _ticks(self._top / scale):
            y = self.y(tick * scale)
            parts.append(f'<path class="grid" d="M{_LEFT} {y}H{end}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{float(y) + 4:g}" text-anchor="end">{tick:g}</text>')
        if not self._is_bytes:
            name, width = _byte_unit(self._right)
            for tick in _ticks(self._right / width):
                x = self.x(tick * width)
                parts.append(f'<path class="grid" d="M{x} {_TOP}V{base}"/>')
                parts.append(f'<text x="{x}" y="{base + 16}" text-anchor="middle">{tick:g}</text>')
            below = f"{below} ({name})"
        parts.append(f'<path class="frame" d="M{_LEFT} {_TOP}V{base}H{end}"/>')
        middle = _TOP + _HEIGHT / 2
        parts.append(
            f'<text class="axis" x="{_LEFT + _WIDTH / 2:g}" y="{base + 36}" text-anchor="middle">{below}</text>'
            f'<text class="axis" x="12" y="{middle:g}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle:g})">{beside} ({unit})</text>'
        )
        return parts


def _steps(plot: _Plot, values: Sequence[int]) -> str:
    path = f"M{_LEFT} {plot.y(values[0])}"
    for index, value in enumerate(values):
        path += f"V{plot.y(value)}H{plot.x((index + 1) / len(values))}"
    return path


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 on, four to nine of them."""
    step = 10.0 ** math.floor(math.log10(most))
    step = next(step * part for part in (1.0, 0.5, 0.2, 0.1) if most / (step * part) >= 4 or part == 0.1)
    return [round(step * index, 10) for index in range(int(most / step) + 1)]


def _byte_unit(most: float) -> tuple[str, float]:
    return next((name, float(scale)) for scale, name in _UNITS if most >= scale or scale == 1)


def _svg(kind: str, width: float, height: float, title: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="{kind}" role="img" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'aria-label="{title}">{"".join(parts)}</svg>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
