"""Ways of computing a network: which tasks each needs, how much memory each takes, and that all compute the same."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import onnx
import pytest

from schedules.graph.pipeline import prepare
from tests.schedules import building, networks
from tests.schedules.networks import Network
from tuner.front import MemoryNeeds
from tuner.search.alternatives import USUAL_WAY, calls, network_us, totals_us
from tuner.targets import TargetSpec, host_target
from tuner.tasks import call_counts, extract_tasks, task_functions, task_module, workload_key
from tuner.ways import Ways


def spec(threads: int = 2) -> TargetSpec:
    host = host_target()
    return replace(host, threads=threads)


def small_cache() -> TargetSpec:
    return replace(spec(), cache_bytes={"l2": 1000})


def residual_blocks() -> onnx.ModelProto:
    """A stem, two equal blocks of two 3×3 convolutions with their input added, a strided block, a loose convolution."""
    n = Network(seed=5)
    t = n.node("Relu", n.conv("x", inputs=3, outputs=16, strides=[2, 2]))
    for _ in range(2):
        inner = n.node("Relu", n.conv(t, inputs=16, outputs=16))
        t = n.node("Relu", n.node("Add", n.conv(inner, inputs=16, outputs=16), t))
    side = n.node("Sigmoid", t)
    t = n.node("Relu", n.conv(t, inputs=16, outputs=16))
    t = n.node("Add", t, side)
    t = n.node("Relu", n.conv(t, inputs=16, outputs=24, strides=[2, 2]))
    return n.model(n.conv(t, inputs=24, outputs=8, kernel=1), shape=(1, 3, 30, 26))


@pytest.fixture(scope="module")
def ways() -> Ways:
    return Ways(prepare(networks.imported(residual_blocks())), spec(), every_chain=True)


def combinations(ways: Ways, count: int) -> list[dict[str, str]]:
    every = [dict(zip(ways.choices, each, strict=True)) for each in itertools.product(*ways.choices.values())]
    return random.Random(3).sample(every, min(count, len(every)))


def test_choices_are_chains_and_the_convolutions_outside_of_them(ways: Ways) -> None:
    assert list(ways.choices) == ["15×13×16→15×13×16, 2 operators", "15×13×16→8×7×8, 3 operators"]
    blocks = ways.choices["15×13×16→15×13×16, 2 operators"]
    usual = [USUAL_WAY, "winograd", "windows 2×1", "windows 2×4", "windows 1×1"]
    assert blocks == [*usual, "windows 1×1, 2 tiles", "windows 1×1, 3 tiles"]
    without_limit = Ways(prepare(networks.imported(residual_blocks())), small_cache(), needed=())
    assert without_limit.choices["15×13×16→15×13×16, 2 operators"] == usual


def test_little_memory_is_bought_with_multiplications(ways: Ways) -> None:
    needs = MemoryNeeds(ways)
    for choice in ways.choices:
        frugal = ways.frugal(choice)
        assert frugal[0] == "windows 1×1"
        assert len(frugal) > 1
        described = [ways.windows({choice: way})[0]["parts"] for way in frugal]
        macs = [sum(part["computed_macs"] for part in parts) for parts in described]  # type: ignore[attr-defined]
        assert macs == sorted(macs)
        assert macs[-1] <= 1.5 * macs[0]
        peaks = [needs.peaks[choice][way] for way in frugal]
        assert peaks == sorted(peaks, reverse=True)


def test_a_networks_calls_are_the_sum_of_its_ways(ways: Ways) -> None:
    tasks = extract_tasks(ways, spec(), seed=0)
    for chosen in combinations(ways, 12):
        fused = ways.fused(chosen)
        counted = Counter[str]()
        for name, function in task_functions(fused).items():
            counted[workload_key(task_module(function))] += call_counts(fused)[name]
        expected = {task.tuning.workload.key: calls(task.tuning, chosen) for task in tasks}
        assert counted == Counter({key: count for key, count in expected.items() if count})


def test_the_peak_of_a_network_is_the_highest_of_its_parts(ways: Ways) -> None:
    needs = MemoryNeeds(ways)
    for chosen in combinations(ways, 12):
        parts = max(needs.peaks[choice][way] for choice, way in chosen.items())
        assert needs.alive_bytes(chosen) == parts
        assert parts <= needs.planned_bytes(chosen) <= 1.3 * parts
    assert needs.planned_bytes(needs.smallest) == needs.least_bytes


def test_the_front_trades_memory_for_latency(ways: Ways) -> None:
    needs, tasks = MemoryNeeds(ways), extract_tasks(ways, spec(), seed=0)
    rng = random.Random(1)
    known = [(task.tuning, rng.uniform(10, 100)) for task in tasks]
    totals = totals_us(known)
    points = needs.front(totals, everywhere_us=network_us(known, {}))
    assert points[0].peak_bytes == needs.least_bytes
    assert points[-1].estimated_us == pytest.approx(network_us(known))
    for less, more in itertools.pairwise(points):
        assert less.peak_bytes < more.peak_bytes
        assert less.estimated_us > more.estimated_us
    for point in points:
        assert point.peak_bytes == needs.planned_bytes(point.ways)
        assert point.estimated_us == pytest.approx(network_us(known, point.ways))
        assert needs.alive_bytes(needs.fastest_within(point.peak_bytes, totals)) <= point.peak_bytes


def test_ways_that_were_not_searched_are_not_chosen(ways: Ways) -> None:
    needs = MemoryNeeds(ways)
    known = {
        choice: {way: 10.0 for way in every if way != needs.smallest[choice]} for choice, every in needs.peaks.items()
    }
    chosen = needs.fastest_within(0, known)
    for choice, way in chosen.items():
        assert needs.peaks[choice][way] == min(needs.peaks[choice][each] for each in known[choice])
    assert needs.front(known, everywhere_us=0.0)


def test_every_way_computes_the_same(ways: Ways) -> None:
    model = residual_blocks()
    values = networks.example_input(model)
    (expected,) = networks.reference(model, values)
    for chosen in combinations(ways, 4):
        (output,) = building.run(building.built(ways.fused(chosen)), values)
        assert building.relative_error(output, expected) < 1e-5


def test_a_network_without_windows_has_one_way() -> None:
    n = Network(seed=6)
    model = n.model(n.node("MatMul", n.node("Relu", "x"), n.weight(8, 8)), shape=(1, 4, 8, 8))
    alone = Ways(prepare(networks.imported(model)), spec())
    assert alone.choices == {}
    needs = MemoryNeeds(alone)
    assert needs.peaks == {}
    assert needs.least_bytes == needs.planned_bytes({}) > 0


def test_the_mean_behind_a_chain_is_taken_row_by_row() -> None:
    n = Network(seed=8)
    t = n.node("Relu", n.conv("x", inputs=8, outputs=16, strides=[2, 2]))
    t = n.node("Relu", n.conv(t, inputs=16, outputs=64, kernel=1))
    flat = n.node("Flatten", n.node("GlobalAveragePool", t))
    model = n.model(n.node("MatMul", flat, n.weight(64, 10)), shape=(1, 8, 17, 15))
    averaging = Ways(prepare(networks.imported(model)), spec(), every_chain=True)
    ((choice, way),) = averaging.smallest_plans.items()
    assert way == "windows 1×1 with mean"
    assert all("tiles" not in each for each in averaging.choices[choice])
    needs = MemoryNeeds(averaging)
    assert needs.alive_bytes({choice: way}) < 4 * 64 * 9 * 8 < needs.alive_bytes({choice: "windows 1×1"})
    values = networks.example_input(model)
    (expected,) = networks.reference(model, values)
    for each in averaging.choices[choice]:
        (output,) = building.run(building.built(averaging.fused({choice: each})), values)
        assert building.relative_error(output, expected) < 1e-5
    ((part,),) = [each["parts"] for each in averaging.windows({choice: way})]  # type: ignore[misc]
    assert [each["operator"] for each in part["operators"]][-1] == "mean"
