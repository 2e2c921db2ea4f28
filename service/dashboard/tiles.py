"""The mark of the house: the tile structure of a schedule as a small precise drawing, made from its knobs.

Two spatial axes span nested rectangles, one per level of the tiling; every other axis is a nested bar below. A level's
side is drawn on a logarithmic scale of its extent (56 → 8 → 2 would otherwise leave two dots), and the ticks on its
edge count how many tiles of the next level fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

# Which two axes a person expects as the plane: image axes, then the axes of a matrix.
_PLANES = (("h", "w"), ("oh", "ow"), ("y", "x"), ("m", "n"), ("i", "j"))
_MOST_TICKS = 8


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One tiled axis; ``factors`` outermost first. The extent of level k is the product of the factors from k on."""

    name: str
    factors: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        return tuple(math.prod(self.factors[level:]) for level in range(len(self.factors)))

    @property
    def text(self) -> str:
        return f"{self.name} {'·'.join(str(factor) for factor in self.factors)}"


@dataclass(frozen=True, kw_only=True)
class _Box:
    width: float
    height: float


def axes(knobs: Mapping[str, object] | None) -> list[Axis]:
    """The tiled axes of a task's or trial's knobs, without those of extent 1, which have nothing to tile.

    [] when there are none (a default schedule, a space that does not tile).
    """
    tiles = (knobs or {}).get("tiles")
    if not isinstance(tiles, Mapping):
        return []
    found = []
    for name, factors in tiles.items():
        if not isinstance(factors, list | tuple):
            continue
        whole = tuple(int(f) for f in factors if isinstance(f, int | float) and f >= 1)
        if len(whole) == len(factors) and math.prod(whole) > 1:
            found.append(Axis(name=str(name), factors=whole))
    return found


def other_knobs(knobs: Mapping[str, object] | None) -> str:
    """The knobs that are not tile factors, as one readable line."""
    shown = []
    for name, value in (knobs or {}).items():
        if name != "tiles" and value is not None and not isinstance(value, dict | list):
            shown.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(shown)


def diagram(knobs: Mapping[str, object] | None, *, width: int = 72, height: int = 48, labels: bool = False) -> Markup:
    """The SVG of a tile structure, or empty markup when the knobs have no tiles.

    Sizes are in CSS pixels. ``labels`` writes the extents of every level along the two edges.
    """
    tiled = axes(knobs)
    if not tiled:
        return Markup("")
    down, across = _plane(tiled)
    bars = [axis for axis in tiled if axis not in (down, across)]
    left, top = (34, 14) if labels else (1, 1)
    bar_pitch = 14 if labels else 4
    bars_height = bar_pitch * len(bars) + (6 if bars else 0)
    plane = _Box(width=width - left - 1, height=max(height - top - 1 - bars_height, 16))
    parts = _nested(down, across, plane, left=left, top=top, labels=labels)
    y = top + plane.height + 6
    for axis in bars:
        parts += _bar(axis, width=plane.width, left=left, y=y, height=8 if labels else 2.5, labels=labels)
        y += bar_pitch
    total_height = top + plane.height + 1 + bars_height
    title = escape("Tiles, outermost first: " + ", ".join(axis.text for axis in tiled))
    return Markup(
        f'<svg class="tiles" role="img" width="{width}" height="{_n(total_height)}" '
        f'viewBox="0 0 {width} {_n(total_height)}" aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
    )


def _plane(tiled: list[Axis]) -> tuple[Axis, Axis | None]:
    by_name = {axis.name: axis for axis in tiled}
    for down, across in _PLANES:
        if down in by_name and across in by_name:
            return by_name[down], by_name[across]
    widest = sorted(tiled, key=lambda axis: -axis.extents[0])[:2]
    ordered = [axis for axis in tiled if axis in widest]
    return ordered[0], ordered[1] if len(ordered) > 1 else None


def _sides(axis: Axis | None, levels: int, room: float) -> list[float]:
    """The drawn length of every level; an axis with fewer levels than its partner keeps its last one."""
    if axis is None:
        return [room * (levels - level) / levels for level in range(levels)]
    extents = axis.extents + (axis.extents[-1],) * (levels - len(axis.extents))
    whole = math.log2(1 + extents[0])
    # A step of at least three pixels per level keeps the lines of levels with equal extents apart.
    lengths = [room]
    for extent in extents[1:]:
        lengths.append(max(min(room * math.log2(1 + extent) / whole, lengths[-1] - 3), 3))
    return lengths


def _nested(down: Axis, across: Axis | None, plane: _Box, *, left: float, top: float, labels: bool) -> list[str]:
    levels = max(len(down.factors), len(across.factors) if across else 1)
    heights = _sides(down, levels, plane.height)
    widths = _sides(across, levels, plane.width)
    parts = []
    for level, (w, h) in enumerate(zip(widths, heights, strict=True)):
        name = "tile-inner" if level == levels - 1 else "tile-outer" if level == 0 else "tile"
        parts.append(f'<rect class="{name}" x="{left}" y="{top}" width="{_n(w)}" height="{_n(h)}"/>')
        if level < levels - 1:
            parts += _ticks(across, level, length=w, at=top + h, left=left, vertical=False)
            parts += _ticks(down, level, length=h, at=left + w, left=top, vertical=True)
    if labels:
        if across:
            parts += [
                f'<text x="{_n(left + w)}" y="{top - 4}" text-anchor="end">{extent}</text>'
                for w, extent in _apart(list(zip(widths, across.extents, strict=False)), 18)
            ]
            parts.append(
                f'<text class="axis" x="{left - 4}" y="{top - 4}" text-anchor="end">{escape(across.name)}</text>'
            )
        parts += [
            f'<text x="{left - 4}" y="{_n(top + h)}" text-anchor="end">{extent}</text>'
            for h, extent in _apart(list(zip(heights, down.extents, strict=False)), 11)
        ]
        parts.append(f'<text class="axis" x="0" y="{_n(top + 9)}">{escape(down.name)}</text>')
    return parts


def _apart(marks: list[tuple[float, int]], gap: float) -> list[tuple[float, int]]:
    """The labels that fit, outermost first: one closer than ``gap`` to the last kept one is left out."""
    kept: list[tuple[float, int]] = []
    for position, extent in marks:
        if not kept or kept[-1][0] - position >= gap:
            kept.append((position, extent))
    return kept


def _ticks(axis: Axis | None, level: int, *, length: float, at: float, left: float, vertical: bool) -> list[str]:
    if axis is None or level >= len(axis.factors):
        return []
    splits = axis.factors[level]
    if not 1 < splits <= _MOST_TICKS:
        return []
    places = [left + length * step / splits for step in range(1, splits)]
    if vertical:
        return [f'<path class="tick" d="M{_n(at)} {_n(place)}h-3"/>' for place in places]
    return [f'<path class="tick" d="M{_n(place)} {_n(at)}v-3"/>' for place in places]


def _bar(axis: Axis, *, width: float, left: float, y: float, height: float, labels: bool) -> list[str]:
    lengths = _sides(axis, len(axis.factors), width)
    parts = [f'<rect class="bar" x="{left}" y="{_n(y)}" width="{_n(lengths[0])}" height="{height}"/>']
    parts.append(f'<rect class="bar-inner" x="{left}" y="{_n(y)}" width="{_n(lengths[-1])}" height="{height}"/>')
    for outer, inner in pairwise(lengths):
        if inner < outer and inner != lengths[-1]:
            parts.append(f'<path class="tick" d="M{_n(left + inner)} {_n(y)}v{height}"/>')
    if labels:
        parts.append(f'<text class="axis" x="0" y="{_n(y + 8)}">{escape(axis.name)}</text>')
    return parts


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
