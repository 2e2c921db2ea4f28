"""Memory against latency: which ways a network may take within a limit, and the Pareto front of those worth taking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import tvm

from schedules.graph.windows import LABEL
from schedules.memory.lifetimes import Activations, activations, with_allocations
from schedules.memory.storages import share
from tuner.search.alternatives import USUAL_WAY, Totals
from tuner.ways import Ways, window_label

Peaks = Mapping[str, Mapping[str, int]]
"""Peak bytes by choice and way."""


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """Ways of a network, the memory that a run allocates with them, and its latency as far as it is known: Σ calls ×
    best over its tasks."""

    ways: Mapping[str, str]
    peak_bytes: int
    estimated_us: float

    def as_dict(self) -> dict[str, object]:
        """What the manifest keeps: the usual way of a choice goes without saying."""
        ways = {choice: way for choice, way in self.ways.items() if way != USUAL_WAY}
        return {"peak_bytes": self.peak_bytes, "estimated_us": round(self.estimated_us, 2), "ways": ways}


class MemoryNeeds:
    """How much memory the ways of a network take, workspaces of functions not counted.

    ``peaks`` are the bytes that are alive at most. The choices are independent there: a part's own tensors are alive
    while it is computed and not a step longer, so that the peak of a network is the highest of its parts, each with all
    others in their smallest way. The storages that hold what is alive take a little more (`planned_bytes`).
    """

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._known: dict[frozenset[tuple[str, str]], Activations | None] = {}

    @cached_property
    def peaks(self) -> Peaks:
        """The highest sum of what is alive, by choice and way; empty where shapes are not known."""
        smallest = self._ways.smallest_plans
        fused = self._ways.fused(smallest)
        found = self._activations(smallest, fused)
        return {} if found is None else self._peaks(smallest, fused, found)

    @property
    def thresholds(self) -> list[int]:
        """The peaks that networks can have, from the lowest."""
        least = max((min(ways.values()) for ways in self.peaks.values()), default=0)
        every = {peak for ways in self.peaks.values() for peak in ways.values() if peak >= least}
        return sorted(every | {least})

    @property
    def smallest(self) -> dict[str, str]:
        """The ways in which every part has its lowest peak; of equal ones those that hold least themselves, since what
        lies beside them then fits into fewer storages."""
        plans = self._ways.smallest_plans
        return {
            choice: min(peaks, key=lambda way: (peaks[way], way != plans.get(choice)))
            for choice, peaks in self.peaks.items()
        }

    @property
    def least_bytes(self) -> int:
        """The smallest feasible memory limit."""
        return self.planned_bytes(self.smallest)

    def alive_bytes(self, ways: Mapping[str, str]) -> int:
        """How much is alive at most in a run with these ways, the output included; 0 where shapes are not known."""
        found = self._activations(ways)
        return 0 if found is None else found.peak_bytes + found.output_bytes

    def timeline(self, ways: Mapping[str, str]) -> list[tuple[str, int]]:
        """Each function of a run with these ways, in order, and how much is alive meanwhile, input and output not
        counted; empty where shapes are not known."""
        found = self._activations(ways)
        return [] if found is None else found.timeline

    def planned_bytes(self, ways: Mapping[str, str]) -> int:
        """What a run with these ways allocates; 0 where shapes are not known."""
        found = self._activations(ways)
        return 0 if found is None else share(list(found.lifetimes.values())).total_bytes + found.output_bytes

    def within(self, limit_bytes: int) -> dict[str, list[str]]:
        """The ways of every choice that a limit allows, the smallest one where it allows none."""
        return {
            choice: [way for way, peak in ways.items() if peak <= max(limit_bytes, min(ways.values()))]
            for choice, ways in self.peaks.items()
        }

    def front(self, totals: Totals, *, everywhere_us: float) -> list[FrontPoint]:
        """The Pareto front, least memory first, from the latencies of all ways (infinite: not measured); empty where
        shapes are not known."""
        points: list[FrontPoint] = []
        for threshold in self.thresholds if self.alive_bytes({}) else ():
            ways = self.fastest_within(threshold, totals)
            estimated_us = everywhere_us + sum(totals[choice][way] for choice, way in ways.items())
            if math.isfinite(estimated_us) and (not points or estimated_us < points[-1].estimated_us):
                points.append(FrontPoint(ways=ways, peak_bytes=self.planned_bytes(ways), estimated_us=estimated_us))
        return [
            point
            for point in points
            if not any(
                other.peak_bytes <= point.peak_bytes and other.estimated_us < point.estimated_us for other in points
            )
        ]

    def fastest_within(self, limit_bytes: int, totals: Totals) -> dict[str, str]:
        """The fastest way of every choice that a limit allows, of those that were searched: the smallest of these where
        it allows none."""
        allowed, fastest = self.within(limit_bytes), dict[str, str]()
        for choice, ways in totals.items():
            possible = [way for way in ways if way in allowed.get(choice, ways)]
            if not possible:
                possible = [min(ways, key=lambda way: self.peaks[choice][way])]
            fastest[choice] = min(possible, key=lambda way: ways[way])
        return fastest

    def _peaks(self, smallest: Mapping[str, str], fused: tvm.IRModule, found: Activations) -> Peaks:
        labels = {
            name.name_hint: str(function.attrs[LABEL])
            for name, function in fused.functions.items()
            if LABEL in (function.attrs or {})
        }
        alive: dict[str, int] = {}
        for name, size in found.timeline:
            if name in labels:
                alive[labels[name]] = max(alive.get(labels[name], 0), size + found.output_bytes)
        peaks: dict[str, dict[str, int]] = {}
        for choice, ways in self._ways.choices.items():
            own = peaks.setdefault(choice, {})
            for way in ways:
                rings, before = (self._ways.ring_bytes(choice, each) for each in (way, smallest.get(choice, way)))
                if rings is None or before is None:
                    own[way] = self.alive_bytes({**smallest, choice: way})
                else:
                    # Rings are alive in the one step that computes the chain.
                    own[way] = alive[window_label(choice, smallest[choice])] - before + rings
        return peaks

    def _activations(self, ways: Mapping[str, str], fused: tvm.IRModule | None = None) -> Activations | None:
        key = frozenset((choice, way) for choice, way in ways.items() if way != USUAL_WAY)
        if key not in self._known:
            self._known[key] = activations(with_allocations(fused or self._ways.fused(ways)))
        return self._known[key]
