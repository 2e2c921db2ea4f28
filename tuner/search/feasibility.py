"""Feasibility: what a task's trials teach about drafts that fail and drafts that take long to build.

A failed candidate has no latency, and none is made up for it: it teaches how likely others like it are to fail. Nothing
is learned, and nothing spent, before enough builds failed or took long.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubts = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""What to add to the scores of feature rows (log2 of throughput): 0 without a doubt, else negative."""

_MIN_FAILURES = 4
# A chance of failure of 97 % weighs like a 32-fold latency: the worst of those that are likely to run comes before it.
_CERTAIN = 0.97
# A build takes too long from five times the task's median on. Such a draft is put behind every other.
_TOO_LONG, _PUT_BEHIND = 5.0, 16.0
_BEST_KEPT = 8
_ROWS = 600
_ROUNDS, _RATE, _CUTS, _PRIOR = 30, 0.3, 12, 1.0


class Feasibility:
    """Learns from one task's trials, failures included. Deterministic: equal trials, equal doubts."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float32]] = []
        self._latency_us: list[float] = []
        self._build_s: list[float] = []

    def note(self, row: NDArray[np.float32], *, latency_us: float | None, build_s: float | None) -> None:
        """One trial: its feature row, its latency (None: it failed), and the seconds of its build (None: unknown)."""
        self._rows.append(row)
        self._latency_us.append(np.nan if latency_us is None else latency_us)
        self._build_s.append(np.nan if build_s is None else build_s)

    def doubts(self) -> Doubts | None:
        """What the newest trials say against drafts; None while they say nothing."""
        latency_us, build_s = np.array(self._latency_us[-_ROWS:]), np.array(self._build_s[-_ROWS:])
        failed = np.isnan(latency_us)
        may_fail = min(failed.sum(), (~failed).sum()) >= _MIN_FAILURES
        limit_s = _limit_s(latency_us, build_s)
        may_take_long = (build_s > limit_s).sum() >= _MIN_FAILURES
        if not may_fail and not may_take_long:
            return None
        rows = np.stack(self._rows[-_ROWS:])
        failing = Stumps(rows, failed.astype(np.float64)) if may_fail else None
        known = build_s > 0
        long = Stumps(rows[known], np.log2(build_s[known])) if may_take_long else None

        def doubt(candidates: NDArray[np.float32]) -> NDArray[np.float64]:
            doubted = np.zeros(len(candidates))
            if failing is not None:
                doubted += np.log2(1.0 - np.clip(failing.predict(candidates), 0.0, _CERTAIN))
            if long is not None:
                doubted -= _PUT_BEHIND * (long.predict(candidates) > np.log2(limit_s))
            return doubted

        return doubt


def _limit_s(latency_us: NDArray[np.float64], build_s: NDArray[np.float64]) -> float:
    """The most that a build may take: a multiple of what those that ran took, more where the best ones took more."""
    ran = np.flatnonzero(~np.isnan(latency_us) & (build_s > 0))
    if not len(ran):
        return np.inf
    best = ran[np.argsort(latency_us[ran], kind="stable")[:_BEST_KEPT]]
    return float(max(_TOO_LONG * np.median(build_s[ran]), build_s[best].max()))


class Stumps:
    """A least-squares fit by a sum of decision stumps (gradient boosting, Friedman 2001), small enough for NumPy.

    Thresholds fit what makes candidates fail (a buffer, a body or a loop that is too large); 600 rows take 20 ms.
    """

    def __init__(self, features: NDArray[np.float32], targets: NDArray[np.float64]) -> None:
        self._mean = float(targets.mean())
        self._stumps: list[tuple[int, float, float, float]] = []
        columns, cuts = _cuts(features)
        if not len(cuts):
            return
        below = (features[:, columns] <= cuts).T.astype(np.float64)
        inside = below.sum(axis=1)
        residual = targets - self._mean
        for _ in range(_ROUNDS):
            low = below @ residual
            high = residual.sum() - low
            gain = low**2 / (inside + _PRIOR) + high**2 / (len(targets) - inside + _PRIOR)
            best = int(np.argmax(gain))
            if_below = float(_RATE * low[best] / (inside[best] + _PRIOR))
            if_above = float(_RATE * high[best] / (len(targets) - inside[best] + _PRIOR))
            self._stumps.append((int(columns[best]), float(cuts[best]), if_below, if_above))
            residual = residual - np.where(below[best] > 0, if_below, if_above)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The fitted target of every row."""
        fitted = np.full(len(features), self._mean)
        for column, cut, if_below, if_above in self._stumps:
            fitted += np.where(features[:, column] <= cut, if_below, if_above)
        return fitted


def _cuts(features: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Columns and thresholds to try: between neighbouring values, at most a dozen a column."""
    columns: list[int] = []
    cuts: list[float] = []
    for column, values in enumerate(map(np.unique, features.T.astype(np.float64))):
        between = (values[1:] + values[:-1]) / 2
        if len(between) > _CUTS:
            between = between[np.linspace(0, len(between) - 1, _CUTS).round().astype(np.int64)]
        cuts += between.tolist()
        columns += [column] * len(between)
    return np.array(columns, dtype=np.int64), np.array(cuts, dtype=np.float64)
