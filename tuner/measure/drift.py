"""How steady the machine is: one kernel of the job, kept and timed again while the search goes on."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.measure.jobs import Built, Failure, Runner, Timed, new_library

# Often enough to see a neighbour's load come and go; never more than one per cent of the time.
_INTERVAL_S, _COST_SHARE = 25.0, 0.01


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """What the timings of the reference kernel say so far.

    ``latency_us`` is the latest one; ``drift`` the slowest ÷ the fastest; ``noise`` by how much two timings of the same
    minute differ, as a share (the median over all ``timings``).
    """

    latency_us: float
    drift: float
    noise: float
    timings: int


class ReferenceKernel:
    """The fastest candidate of a job's first measured batch, timed as candidates are.

    It is measured twice side by side each time, so that what the machine does within seconds (noise) is told from what
    it does over minutes (drift).
    """

    def __init__(self, runner: Runner, *, scratch: Path, clock: Callable[[], float]) -> None:
        self._runner = runner
        self._scratch = scratch
        self._clock = clock
        self._kernel: Built | None = None
        self._due = 0.0
        self._latencies_us: list[float] = []
        self._noises: list[float] = []

    @property
    def steadiness(self) -> Steadiness | None:
        """None before the first timing."""
        if not self._latencies_us:
            return None
        return Steadiness(
            latency_us=self._latencies_us[-1],
            drift=max(self._latencies_us) / min(self._latencies_us),
            noise=statistics.median(self._noises),
            timings=len(self._latencies_us),
        )

    @property
    def is_due(self) -> bool:
        """Whether there is a kernel and it is time for a timing."""
        return self._kernel is not None and self._clock() >= self._due

    def offer(self, built: Sequence[Built], timed: Sequence[Timed | Failure]) -> None:
        """Keep a copy of the fastest of these candidates, unless there is a kernel already."""
        ran = [
            (result.latency_us, item) for item, result in zip(built, timed, strict=True) if isinstance(result, Timed)
        ]
        if self._kernel is None and ran:
            _, fastest = min(ran, key=lambda pair: pair[0])
            kept = new_library(self._scratch)
            self._kernel = replace(fastest, library=kept)
            shutil.copyfile(fastest.library, kept)
            self._due = self._clock()

    def time(self) -> Steadiness | None:
        """Time the kernel now; None when that failed or when there is no kernel."""
        if self._kernel is None:
            return None
        started = self._clock()
        answers = self._runner.time([self._kernel, self._kernel], best_us=None)
        now = self._clock()
        self._due = now + max(_INTERVAL_S, (now - started) / _COST_SHARE)
        latencies_us = [answer.latency_us for answer in answers if isinstance(answer, Timed)]
        if len(latencies_us) < len(answers):
            return None
        self._latencies_us.append(min(latencies_us))
        self._noises.append(max(latencies_us) / min(latencies_us) - 1.0)
        return self.steadiness

    def close(self) -> None:
        """Remove the kernel's library; what was found stays."""
        if self._kernel is not None:
            self._kernel.library.unlink(missing_ok=True)
            self._kernel = None
