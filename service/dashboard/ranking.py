"""What the figures of a cost model say in words, and its held-out points as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from service.dashboard.figures import NOTHING, significant
from service.schemas.cost_models import HeldOutPointSchema

# Where measured schedules are parted, in times the best latency of their workload. Close to the best it matters most.
_PARTS = (1.0, 1.25, 1.5, 2.0, 4.0, 8.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of a cost model: the ``question`` that it answers, its value as ``text``, and what it counts."""

    question: str
    text: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Band:
    """Held-out points that were measured about as slow as each other: what was predicted of them."""

    measured: str
    count: int
    median: str
    middle_half: str


def of_hundred(fraction: float | None) -> str:
    """A share with three significant digits: 0.9114 → 91.1 %."""
    return NOTHING if fraction is None else f"{significant(100 * fraction)} %"


def answers(quality: Mapping[str, float]) -> list[Figure]:
    """The three figures with the words that explain them; [] for a version without held-out quality."""
    if not {"pairwise_accuracy", "top_1", "top_5"} <= quality.keys():
        return []
    return [
        Figure(
            question="Of two schedules, which is faster?",
            text=f"{of_hundred(quality['pairwise_accuracy'])} right",
            note="Pairwise accuracy: pairs of schedules of one workload in the right order. Guessing gives 50 %.",
        ),
        Figure(
            question="How good is the first one it names?",
            text=f"{of_hundred(quality['top_1'])} of the best",
            note="Top-1: speed of the schedule that it ranks first, against the best that was measured.",
        ),
        Figure(
            question="And the best of its first five?",
            text=f"{of_hundred(quality['top_5'])} of the best",
            note="Top-5: speed of the fastest among the five that it ranks first.",
        ),
    ]


def bands(points: Sequence[HeldOutPointSchema]) -> list[Band]:
    """The points by how slow they were measured, fastest first; bands without points are left out."""
    found = []
    for low, high in pairwise(_PARTS):
        predicted = sorted(
            slowness(point.predicted_log2) for point in points if low <= slowness(point.measured_log2) < high
        )
        if not predicted:
            continue
        quarter, median, three_quarters = (
            statistics.quantiles(predicted, n=4, method="inclusive") if len(predicted) > 1 else predicted * 3
        )
        found.append(
            Band(
                measured=f"{low:g} to {high:g}×" if high < math.inf else f"{low:g}× and more",
                count=len(predicted),
                median=f"{significant(median)}×",
                middle_half=f"{significant(quarter)} to {significant(three_quarters)}×",
            )
        )
    return found


def slowness(throughput_log2: float) -> float:
    """Latency in times the best of the workload: −1 → 2."""
    return math.exp2(-throughput_log2)
