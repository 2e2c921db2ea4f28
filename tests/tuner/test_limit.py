"""Which ways are tried under a memory limit, and in which order."""

from __future__ import annotations

import itertools
import random

import pytest

from schedules.graph.pipeline import prepare
from tests.schedules import networks
from tests.tuner.test_ways import residual_blocks, spec
from tuner.errors import MemoryLimitError
from tuner.front import MemoryNeeds
from tuner.limit import MemoryLimit
from tuner.memory import MemoryPlan
from tuner.plan import without_unknown_ways
from tuner.records import MemoryRecordStore
from tuner.search.alternatives import Alternative, network_us
from tuner.tasks import extract_tasks
from tuner.ways import Ways


def plan(storage_bytes: int) -> MemoryPlan:
    return MemoryPlan(storage_bytes=storage_bytes, workspace_bytes=100, input_bytes=9, output_bytes=50, timeline=())


def test_ways_that_may_keep_a_limit_come_fastest_first() -> None:
    prepared = prepare(networks.imported(residual_blocks()))
    every = MemoryNeeds(Ways(prepared, spec(), every_chain=True))
    limit_bytes = (every.least_bytes + every.planned_bytes({})) // 2
    limit = MemoryLimit(prepared, spec(), limit_bytes)
    tasks = limit.allowed(extract_tasks(limit.ways, spec(), seed=0))
    rng = random.Random(4)
    latency_us = {task.tuning.key: rng.uniform(10, 100) for task in tasks}
    possible, totals, front = limit.choose(tasks, latency_us.get)
    assert limit.needs.alive_bytes(possible[0]) <= limit_bytes
    known = [(task.tuning, latency_us[task.tuning.key]) for task in tasks]
    for faster, smaller in itertools.pairwise(possible):
        assert network_us(known, faster) <= network_us(known, smaller)
        assert limit.needs.alive_bytes(faster) >= limit.needs.alive_bytes(smaller)
    assert limit.needs.planned_bytes(possible[-1]) == limit.needs.least_bytes
    assert totals.keys() == {choice for ways in possible for choice in ways}
    assert min(point.peak_bytes for point in front) <= limit_bytes


@pytest.mark.parametrize("limit_bytes", [60_000, 45_000])
def test_of_the_ways_for_little_memory_one_that_is_surely_enough_is_searched(limit_bytes: int) -> None:
    prepared = prepare(networks.imported(residual_blocks()))
    limit = MemoryLimit(prepared, spec(), limit_bytes)
    enough_bytes = max(0.6 * limit_bytes, min(limit.needs.thresholds))
    searched = {
        use.alternative for task in limit.allowed(extract_tasks(limit.ways, spec(), seed=0)) for use in task.tuning.uses
    }
    for choice, peaks in limit.needs.peaks.items():
        ways = [way for way in limit.ways.frugal(choice) if Alternative(choice=choice, way=way) in searched]
        # Where the limit is tight, the smallest of all stays too.
        spare = [limit.needs.smallest[choice]] if limit_bytes < 2 * limit.needs.least_bytes else []
        enough = [way for way in ways if peaks[way] <= enough_bytes and way not in spare]
        assert enough in ([], [way for way in ways if way not in spare][-1:])
        assert limit_bytes < 60_000 or not ways or peaks[ways[-1]] <= enough_bytes


def test_the_least_that_is_possible_can_be_kept() -> None:
    prepared = prepare(networks.imported(residual_blocks()))
    ways = Ways(prepared, spec(), every_chain=True)
    least_bytes = MemoryNeeds(ways).least_bytes
    assert least_bytes <= MemoryNeeds(ways).planned_bytes(ways.smallest_plans)
    limit = MemoryLimit(prepared, spec(), least_bytes)
    tasks = limit.allowed(extract_tasks(limit.ways, spec(), seed=0))
    # Also of a budget that is too small to compare ways.
    known = without_unknown_ways(tasks, MemoryRecordStore(), spec(), needed=limit.needed_ways)
    for searched in (tasks, known):
        possible, _, _ = limit.choose(searched, lambda _: None)
        assert limit.needs.planned_bytes(possible[-1]) <= least_bytes
    assert not MemoryLimit(prepared, spec(), 3 * least_bytes).needed_ways


def test_what_breaks_a_limit_is_refused_with_what_it_takes() -> None:
    prepared = prepare(networks.imported(residual_blocks()))
    limit = MemoryLimit(prepared, spec(), 1_000_000)
    assert limit.keeps(plan(999_850))
    assert not limit.keeps(plan(999_851))
    assert limit.keeps(None)
    limit.require(1_000_000)
    with pytest.raises(MemoryLimitError, match="1000001"):
        limit.require(1_000_001)
    free = MemoryLimit(prepared, spec(), None)
    assert free.keeps(plan(10**12))
    free.require(10**12)
