"""Alternatives: parts of a network that can be computed in several ways, of which it needs one.

A 3×3 convolution can be computed directly or by Winograd's filtering, a chain of operators one by one or together by
sliding windows. A way is made of tasks, some of which other parts need too. All are searched; what counts for the
network is the fastest way of each choice, and the slower ones are given up when they cannot catch up.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

USUAL_WAY = "direct"
"""The network as it came: one operator after the other, convolutions computed directly."""

# Winning by less than this is winning by luck.
_WORTH_CHANGING = 0.97
# How far behind (relative to the other way) a way may be and still get trials.
_STILL_IN_THE_RACE = 0.5


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """``choice`` names what is computed, the same text for all ways of computing it; ``way`` says how."""

    choice: str
    way: str


@dataclass(frozen=True, kw_only=True)
class Use:
    """``count`` calls of a task in every network that takes the alternative; in every network at all where it is
    None."""

    count: int
    alternative: Alternative | None = None


class Used(Protocol):
    """A task, as far as it matters here."""

    @property
    def uses(self) -> tuple[Use, ...]: ...


Ways = Mapping[str, str]
"""The way of every choice."""
Totals = Mapping[str, Mapping[str, float]]
"""Latency in µs by choice and way: the sum of calls × latency over the tasks of that way."""


def totals_us(tasks: Iterable[tuple[Used, float]]) -> dict[str, dict[str, float]]:
    """The totals of every choice, from tasks and their latencies in µs."""
    totals: dict[str, dict[str, float]] = {}
    for task, latency_us in tasks:
        for use in task.uses:
            if use.alternative is not None:
                ways = totals.setdefault(use.alternative.choice, {})
                ways[use.alternative.way] = ways.get(use.alternative.way, 0.0) + use.count * latency_us
    return totals


def network_us(tasks: Iterable[tuple[Used, float]], ways: Ways | None = None) -> float:
    """Σ calls × latency over the tasks of a network that takes these ways; the fastest way of every choice without."""
    known = list(tasks)
    if ways is not None:
        return sum(calls(task, ways) * latency_us for task, latency_us in known)
    plain = sum(use.count * latency_us for task, latency_us in known for use in task.uses if use.alternative is None)
    return plain + sum(min(ways.values()) for ways in totals_us(known).values())


def calls(task: Used, ways: Ways) -> int:
    """How often a network that takes these ways calls the task."""
    return sum(
        use.count
        for use in task.uses
        if use.alternative is None or ways.get(use.alternative.choice) == use.alternative.way
    )


def most_calls(uses: Sequence[Use]) -> int:
    """How often a task is called by a network that needs it wherever it can."""
    most: dict[str, int] = {}
    for use in uses:
        if use.alternative is not None:
            most[use.alternative.choice] = max(most.get(use.alternative.choice, 0), use.count)
    return sum(use.count for use in uses if use.alternative is None) + sum(most.values())


def expected_calls(task: Used, totals: Totals, *, unmeasured: Collection[Alternative | None]) -> float:
    """How often the finished network will call the task, going by what is known: calls × the chance of their way."""
    return sum(use.count * _chance(use.alternative, totals, unmeasured) for use in task.uses)


def choose_ways(tasks: Iterable[tuple[Used, float | None]]) -> dict[str, str]:
    """The way of every choice, from tasks and their latencies in µs (None: not measured).

    `USUAL_WAY`, unless both ways were measured completely and another one is clearly faster; the fastest where the
    usual one is none (a memory limit forbids it).
    """
    totals = totals_us((task, math.inf if latency_us is None else latency_us) for task, latency_us in tasks)
    chosen = {}
    for choice, ways in totals.items():
        fastest = min(ways, key=lambda way: ways[way])
        usual_us = ways.get(USUAL_WAY)
        is_better = usual_us is None or (math.isfinite(usual_us) and ways[fastest] < _WORTH_CHANGING * usual_us)
        chosen[choice] = fastest if is_better else USUAL_WAY
    return chosen


def _chance(alternative: Alternative | None, totals: Totals, unmeasured: Collection[Alternative | None]) -> float:
    """How probable it is that a way is taken, 0 to 1: fully where it is the fastest, less the farther it is behind.

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
