"""The roofline of a device: the least time that a function's arithmetic and memory traffic could take on it.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009). The figures come from
the kernels of `tuner.roofline_kernels`; a bundle's ``run.py --profile`` says the same of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """``peak_gflops`` of fp32 multiply-adds (two operations each) by all threads; ``bandwidth_gb_s`` of copying what
    fits no cache, bytes read and written."""

    peak_gflops: float
    bandwidth_gb_s: float

    def least_us(self, *, flops: float, traffic_bytes: float) -> float:
        """At peak, or at full bandwidth: whichever takes longer. FLOPs over it are min(peak, bandwidth × intensity)."""
        return max(flops / self.peak_gflops, traffic_bytes / self.bandwidth_gb_s) / 1e3

    def percent(self, *, flops: float, traffic_bytes: float, latency_us: float) -> float:
        """Achieved ÷ attainable. Above 100 where data stays in a cache: the bandwidth is of memory."""
        return 100 * self.least_us(flops=flops, traffic_bytes=traffic_bytes) / latency_us


def measured_roofline(
    kernels: Mapping[str, Mapping[str, Any]], best_us: Callable[[str, Sequence[Sequence[int]]], float]
) -> Roofline:
    """The roofline of where ``best_us`` times a kernel, by its name and the shapes of its arguments. ``kernels`` are as
    `tuner.roofline_kernels.describe_roofline` says. Raises `ValueError` where one of both is missing."""
    rates: dict[str, float] = {}
    for name, kernel in kernels.items():
        work = "flops" if "flops" in kernel else "bytes"
        rates[work] = kernel[work] / best_us(name, kernel["shapes"]) / 1e3
    if rates.keys() != {"flops", "bytes"}:
        raise ValueError(f"a roofline takes a kernel of arithmetic and one of memory, not {list(kernels)}")
    return Roofline(peak_gflops=rates["flops"], bandwidth_gb_s=rates["bytes"])
