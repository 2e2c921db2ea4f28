"""Keeping a memory limit: which ways of computing a network are searched, and which of them are built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tvm

from tuner.errors import MemoryLimitError
from tuner.front import FrontPoint, MemoryNeeds
from tuner.memory import MemoryPlan
from tuner.plan import without
from tuner.search.alternatives import USUAL_WAY, Alternative, Totals, choose_ways, network_us, totals_us
from tuner.targets import TargetSpec
from tuner.tasks import ExtractedTask
from tuner.ways import Ways

# Parts that come nearer to the limit than this may break it when storages and workspaces are counted.
_NEAR = 0.6
# Limits below so many times the least leave no room for workspaces that are as large as tensors (padded inputs): there
# every way to hold less is kept, of all parts that come nearer than the second number.
_TIGHT = 2.0
_NEAR_WHERE_TIGHT = 0.25


class MemoryLimit:
    """A network's ways under a limit, in bytes that a run allocates; without one, all that are worth searching.

    Raises `MemoryLimitError` where no way keeps the limit.
    """

    def __init__(
        self, prepared: tvm.IRModule, spec: TargetSpec, limit_bytes: int | None, *, windows: bool = True
    ) -> None:
        self.limit_bytes = limit_bytes
        self._is_tight = False
        needed: list[str] = []
        if limit_bytes is not None:
            every = MemoryNeeds(Ways(prepared, spec, every_chain=True, windows=windows))
            if limit_bytes < every.least_bytes:
                raise self._infeasible(every.least_bytes)
            self._is_tight = limit_bytes < _TIGHT * every.least_bytes
            free_bytes = (_NEAR_WHERE_TIGHT if self._is_tight else _NEAR) * limit_bytes
            needed = [choice for choice, peaks in every.peaks.items() if peaks[USUAL_WAY] > free_bytes]
        self.ways = Ways(prepared, spec, needed=needed, windows=windows)
        self.needs = MemoryNeeds(self.ways)

    def allowed(self, tasks: Sequence[ExtractedTask]) -> list[ExtractedTask]:
        """The tasks without those that only ways need that the limit forbids, or that save more than it asks for."""
        if self.limit_bytes is None:
            return list(tasks)
        allowed = self.needs.within(self.limit_bytes)
        # A part that holds less than another one must hold gains nothing but fewer storages.
        smallest = self.needs.smallest
        enough_bytes = max(_NEAR * self.limit_bytes, self.needs.thresholds[0])
        for choice, ways in allowed.items():
            peaks = self.needs.peaks[choice]
            enough = [way for way in self.ways.frugal(choice) if way in ways and peaks[way] <= enough_bytes]
            kept = {*enough[:1], smallest[choice]} if self._is_tight else enough[:1]
            allowed[choice] = [way for way in ways if way not in enough or way in kept]
        return without(tasks, lambda each: each.way not in allowed.get(each.choice, [each.way]))

    @property
    def needed_ways(self) -> set[Alternative]:
        """The ways that a build needs, whatever they cost, if no other one keeps the limit."""
        if not self._is_tight:
            return set()
        return {Alternative(choice=choice, way=way) for choice, way in self.needs.smallest.items()}

    def choose(
        self, tasks: Sequence[ExtractedTask], best_us: Callable[[str], float | None]
    ) -> tuple[list[dict[str, str]], Totals, list[FrontPoint]]:
        """Ways that may keep the limit, the fastest first; what all ways take; the front of memory against latency.

        ``best_us`` is what the search knows of a task. Without a limit the fastest ways are the only answer. With one
        they are judged by what is alive at most: what else storages and schedules take shows when they are scheduled,
        and those that break the limit then are followed by some that have less alive.
        """
        known = [(task.tuning, best_us(task.tuning.key) if task.tunable else None) for task in tasks]
        totals = totals_us((task, math.inf if latency_us is None else latency_us) for task, latency_us in known)
        everywhere_us = network_us(((task, latency_us or 0.0) for task, latency_us in known), {})
        front = self.needs.front(totals, everywhere_us=everywhere_us)
        if self.limit_bytes is None:
            return [choose_ways(known)], totals, front
        possible: list[dict[str, str]] = []
        for peak_bytes in [*reversed(self.needs.thresholds), 0]:  # in the end the smallest of each, whatever it costs
            ways = self.needs.fastest_within(min(peak_bytes, self.limit_bytes), totals)
            if ways not in possible:
                possible.append(ways)
        smallest = {choice: way for choice, way in self.needs.smallest.items() if way in totals.get(choice, {})}
        if possible[-1] != (least := {**possible[-1], **smallest}):
            possible.append(least)
        return possible, totals, front

    def keeps(self, memory: MemoryPlan | None) -> bool:
        """Whether a scheduled network keeps the limit; one whose shapes are not known may."""
        return self.limit_bytes is None or memory is None or memory.peak_bytes <= self.limit_bytes

    def require(self, peak_bytes: int | None) -> None:
        """Raise where a build takes more than the limit allows, whatever was planned; None is not known."""
        if self.limit_bytes is not None and peak_bytes is not None and peak_bytes > self.limit_bytes:
            raise self._infeasible(peak_bytes)

    def _infeasible(self, least_bytes: int) -> MemoryLimitError:
        message = f"A run cannot keep within {self.limit_bytes} bytes: the least that is possible are {least_bytes}."
        details: dict[str, object] = {"memory_limit_bytes": self.limit_bytes, "least_bytes": least_bytes}
        return MemoryLimitError(message, details=details)
