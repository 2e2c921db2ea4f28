"""How much each knob explains of a task's latency.

Of every knob alone, the share of the variance of log latency that lies between its values: the correlation ratio η²
(Fisher, "Statistical Methods for Research Workers", 1925), less what as many values would explain by chance (ε²:
Kelley, "An unbiased correlation ratio measure", 1935). Below 0 is 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_TRIALS = 12
"""Fewer measured trials tell nothing."""
_LEAST_PER_VALUE = 3
"""A knob whose values have fewer trials each, on average, is not judged."""


@dataclass(frozen=True, kw_only=True)
class KnobImportance:
    """``names`` are the knobs that split the trials into the same groups: they cannot be told apart. ``best`` is the
    value of the first one with the least geometric mean latency."""

    names: tuple[str, ...]
    explained: float
    values: int
    best: str

    @property
    def name(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The knobs that were judged, the most important first, and how many varied but have too many values for that."""

    measured: int
    knobs: tuple[KnobImportance, ...]
    unjudged: int


def knob_importance(trials: Sequence[tuple[Mapping[str, Any], float]]) -> Importance:
    """Of the knobs and latencies of a task's measured trials; failed ones have no part in it."""
    if len(trials) < LEAST_TRIALS:
        return Importance(measured=len(trials), knobs=(), unjudged=0)
    logs = [math.log(latency_us) for _, latency_us in trials]
    flat = [_flat(knobs) for knobs, _ in trials]
    judged: dict[tuple[int, ...], tuple[list[str], list[Hashable]]] = {}
    unjudged = 0
    for name in dict.fromkeys(name for values in flat for name in values):
        values = [each.get(name) for each in flat]
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        if len(numbers) < 2:
            continue
        if len(numbers) * _LEAST_PER_VALUE > len(trials):
            unjudged += 1
            continue
        names, _ = judged.setdefault(tuple(numbers[value] for value in values), ([], values))
        names.append(name)
    knobs = [_judge(tuple(names), values, logs) for names, values in judged.values()]
    knobs.sort(key=lambda knob: -knob.explained)
    return Importance(measured=len(trials), knobs=tuple(knobs), unjudged=unjudged)


def _judge(names: tuple[str, ...], values: Sequence[Hashable], logs: Sequence[float]) -> KnobImportance:
    groups: dict[Hashable, list[float]] = {}
    for value, log in zip(values, logs, strict=True):
        groups.setdefault(value, []).append(log)
    means = {value: math.fsum(group) / len(group) for value, group in groups.items()}
    mean = math.fsum(logs) / len(logs)
    total = math.fsum((log - mean) ** 2 for log in logs)
    within = math.fsum((log - means[value]) ** 2 for value, log in zip(values, logs, strict=True))
    by_chance = (len(logs) - 1) / (len(logs) - len(groups))
    explained = max(1 - within / total * by_chance, 0.0) if total else 0.0
    best = min(means, key=lambda value: means[value])
    return KnobImportance(
        names=names, explained=explained, values=len(groups), best="none" if best is None else str(best)
    )


def _flat(knobs: Mapping[str, Any]) -> dict[str, Hashable]:
    """Every decision by a name of its own: a tile's factors innermost first, which matter most."""
    flat: dict[str, Hashable] = {}
    for name, value in knobs.items():
        if name == "tiles" and isinstance(value, Mapping):
            for axis, factors in value.items():
                if isinstance(factors, list):
                    levels = len(factors)
                    for level in range(levels, 0, -1):
                        flat[f"{axis} tile, level {level} of {levels}"] = factors[level - 1]
        elif isinstance(value, Mapping):
            flat.update({f"{name.replace('_', ' ')} of {part}": str(each) for part, each in value.items()})
        elif not isinstance(value, list):
            flat[name.replace("_", " ")] = value
    return flat
