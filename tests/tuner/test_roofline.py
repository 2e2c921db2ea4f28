"""The arithmetic of a roofline."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tuner.roofline import Roofline, measured_roofline

ROOFLINE = Roofline(peak_gflops=400.0, bandwidth_gb_s=20.0)
KERNELS = {"multiply": {"shapes": [[2, 3], [3]], "flops": 8_000_000}, "copy": {"shapes": [[5], [5]], "bytes": 40_000}}


@pytest.mark.parametrize(
    ("flops", "traffic_bytes", "least_us"),
    [
        (4e8, 1_000_000, 1000.0),  # 400 operations a byte: at peak
        (4e6, 1_000_000, 50.0),  # 4 operations a byte: at full bandwidth, 80 GFLOP/s
        (2e7, 1_000_000, 50.0),  # 20 a byte, the ridge: both
    ],
)
def test_the_least_time_is_by_arithmetic_or_by_memory(flops: float, traffic_bytes: int, least_us: float) -> None:
    assert ROOFLINE.least_us(flops=flops, traffic_bytes=traffic_bytes) == pytest.approx(least_us)
    attainable_gflops = min(400.0, 20.0 * flops / traffic_bytes)
    assert flops / least_us / 1e3 == pytest.approx(attainable_gflops)
    half = ROOFLINE.percent(flops=flops, traffic_bytes=traffic_bytes, latency_us=2 * least_us)
    assert half == pytest.approx(50.0)


def test_what_stays_in_a_cache_is_above_100_percent() -> None:
    assert ROOFLINE.percent(flops=1000.0, traffic_bytes=40_000, latency_us=1.0) == pytest.approx(200.0)


def test_a_roofline_is_work_over_the_best_time_of_each_kernel() -> None:
    asked: list[tuple[str, Sequence[Sequence[int]]]] = []

    def best_us(name: str, shapes: Sequence[Sequence[int]]) -> float:
        asked.append((name, shapes))
        return {"multiply": 20.0, "copy": 4.0}[name]

    assert measured_roofline(KERNELS, best_us) == Roofline(peak_gflops=400.0, bandwidth_gb_s=10.0)
    assert asked == [(name, kernel["shapes"]) for name, kernel in KERNELS.items()]


@pytest.mark.parametrize("names", [(), ("copy",), ("multiply",)])
def test_without_both_kernels_there_is_none(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one of memory"):
        measured_roofline({name: KERNELS[name] for name in names}, lambda name, shapes: 1.0)
