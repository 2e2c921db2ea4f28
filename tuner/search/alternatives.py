"""Alternatives: parts of a network that can be computed in several ways, of which it needs one.

A 3×3 convolution is one task when it is computed directly, and three by Winograd's filtering. All tasks of a choice are
searched; what counts for the network is the fastest way, and the slower one is given up when it cannot catch up.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

USUAL_WAY = "direct"
"""The network as it came: convolutions that are computed directly."""

# Winning by less than this is winning by luck.
_WORTH_CHANGING = 0.97
# How far behind (relative to the other way) a way may be and still get trials.
_STILL_IN_THE_RACE = 0.5


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """``choice`` names what is computed, the same text for all tasks that compute it; ``way`` says how."""

    choice: str
    way: str


class Weighted(Protocol):
    """A task, as far as it matters here."""

    @property
    def alternative(self) -> Alternative | None: ...

    @property
    def weight(self) -> int: ...


Totals = Mapping[str, Mapping[str, float]]
"""Latency in µs by choice and way: the sum of weight × latency over the tasks of that way."""


def totals_us(tasks: Iterable[tuple[Weighted, float]]) -> dict[str, dict[str, float]]:
    """The totals of every choice, from tasks and their latencies in µs; ways in the order of their first tasks."""
    totals: dict[str, dict[str, float]] = {}
    for task, latency_us in tasks:
        if task.alternative is not None:
            ways = totals.setdefault(task.alternative.choice, {})
            ways[task.alternative.way] = ways.get(task.alternative.way, 0.0) + task.weight * latency_us
    return totals


def network_us(tasks: Iterable[tuple[Weighted, float]]) -> float:
    """Σ weight × latency over the tasks of a network, the fastest way of every choice."""
    known = list(tasks)
    plain = sum(task.weight * latency_us for task, latency_us in known if task.alternative is None)
    return plain + sum(min(ways.values()) for ways in totals_us(known).values())


def chances(alternative: Alternative | None, totals: Totals, *, unmeasured: Collection[Alternative]) -> float:
    """How much a gain of a task counts, 0 to 1: fully where its way is the fastest, less the farther it is behind.

    A way with a task that was never measured has every chance.
    """
    if alternative is None or alternative in unmeasured:
        return 1.0
    ways = totals[alternative.choice]
    others = [total for way, total in ways.items() if way != alternative.way]
    if not others or ways[alternative.way] <= min(others):
        return 1.0
    behind = ways[alternative.way] / min(others) - 1
    return max(0.0, 1 - behind / _STILL_IN_THE_RACE)


def choose_ways(tasks: Iterable[tuple[Weighted, float | None]]) -> dict[str, str]:
    """The way of every choice, from tasks and their latencies in µs (None: not measured).

    `USUAL_WAY`, unless both ways were measured completely and another one is clearly faster.
    """
    totals = totals_us((task, math.inf if latency_us is None else latency_us) for task, latency_us in tasks)
    chosen = {}
    for choice, ways in totals.items():
        fastest = min(ways, key=lambda way: ways[way])
        usual_us = ways.get(USUAL_WAY, math.inf)
        is_better = math.isfinite(usual_us) and ways[fastest] < _WORTH_CHANGING * usual_us
        chosen[choice] = fastest if is_better else USUAL_WAY
    return chosen


def in_use(task: Weighted, ways: Mapping[str, str]) -> bool:
    """Whether a network that takes these ways needs the task."""
    return task.alternative is None or ways[task.alternative.choice] == task.alternative.way
