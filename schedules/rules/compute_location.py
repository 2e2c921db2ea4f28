"""Compute location: where a producer that was not inlined is computed."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import RandomComputeLocation, ScheduleRule


def choose_compute_location() -> ScheduleRule:
    """Move a producer (typically a padding copy) under a sampled loop of its consumer, at the root, or inlined.

    The nearer it is computed, the smaller its buffer and the more of it is computed again.

    Before::

        for h, w in grid(H + 2, W + 2): padded[h, w] = x[h - 1, w - 1] if inside else 0
        for h, w, kh, kw in ...: out[h, w] += padded[h + kh, w + kw] * k[kh, kw]

    After (under the row loop)::

        for h in range(H):
            for dh, w in grid(3, W + 2): padded[h + dh, w] = x[h + dh - 1, w - 1] if inside else 0
            for w, kh, kw in ...: out[h, w] += padded[h + kh, w + kw] * k[kh, kw]
    """
    return RandomComputeLocation()
