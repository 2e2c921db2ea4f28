"""The convergence of a job in the size of a word."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

_WIDTH, _HEIGHT, _MARGIN = 72, 18, 2


def sparkline(steps: Sequence[tuple[int, float]], trials_done: int) -> Markup:
    """An SVG of (trial, estimated latency in µs), the latency on a logarithmic scale; empty markup for fewer than two
    steps. The numbers are beside it, so it says nothing to a screen reader."""
    if len(steps) < 2:
        return Markup("")
    first, last = steps[0][0], max(trials_done, steps[-1][0])
    low, high = (math.log(bound(us for _, us in steps)) for bound in (min, max))

    def x(number: int) -> float:
        return round(_MARGIN + (_WIDTH - 2 * _MARGIN) * (number - first) / max(1, last - first), 1)

    def y(us: float) -> float:
        return round(_MARGIN + (_HEIGHT - 2 * _MARGIN) * (high - math.log(us)) / max(1e-9, high - low), 1)

    path = f"M{x(first)} {y(steps[0][1])}" + "".join(f"H{x(number)}V{y(us)}" for number, us in steps[1:])
    return Markup(
        f'<svg class="sparkline" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'aria-hidden="true"><path class="curve" d="{path}H{x(last)}"/></svg>'
    )
