from __future__ import annotations

from pathlib import Path

import pytest

from tuner.measure.drift import ReferenceKernel
from tuner.measure.jobs import Built, Failure, Timed
from tuner.records import FailureKind


class Machine:
    """A runner and a clock: every timing takes ``takes_s``, and its latency is what the script says next."""

    def __init__(self, *latencies_us: float | None, takes_s: float = 0.01) -> None:
        self.now_s, self.takes_s = 0.0, takes_s
        self.latencies_us = list(latencies_us)
        self.ran: list[str] = []

    def clock(self) -> float:
        return self.now_s

    def time(self, candidates: list[Built], *, best_us: float | None) -> list[Timed | Failure]:
        assert best_us is None
        return [self._time(item) for item in candidates]

    def _time(self, item: Built) -> Timed | Failure:
        assert item.library.exists()
        self.ran.append(item.symbol)
        self.now_s += self.takes_s
        latency_us = self.latencies_us.pop(0)
        if latency_us is None:
            return Failure(kind=FailureKind.RUN_TIMEOUT, message="")
        return Timed(latency_us=latency_us, spread_us=0.0, cost_s=self.takes_s)


def built(directory: Path, name: str) -> Built:
    library = directory / f"{name}.so"
    library.write_text(name)
    return Built(library=library, symbol=name, arguments=(), decisions=(), trace_json="", cost_s=0.0)


def timed(latency_us: float) -> Timed:
    return Timed(latency_us=latency_us, spread_us=0.0, cost_s=0.0)


def with_kernel(machine: Machine, tmp_path: Path) -> ReferenceKernel:
    reference = ReferenceKernel(machine, scratch=tmp_path, clock=machine.clock)
    reference.offer([built(tmp_path, "kernel")], [timed(10.0)])
    (tmp_path / "kernel.so").unlink()
    return reference


def test_the_fastest_of_the_first_measured_batch_is_kept(tmp_path: Path) -> None:
    machine = Machine(10.0, 10.0)
    reference = ReferenceKernel(machine, scratch=tmp_path, clock=machine.clock)
    assert not reference.is_due
    assert reference.time() is None
    failed = Failure(kind=FailureKind.RUN_ERROR, message="")
    reference.offer([built(tmp_path, "broken")], [failed])
    assert not reference.is_due
    reference.offer([built(tmp_path, name) for name in "abc"], [timed(30.0), timed(20.0), failed])
    reference.offer([built(tmp_path, "d")], [timed(1.0)])
    for library in tmp_path.glob("?.so"):
        library.unlink()
    assert reference.is_due
    assert reference.time() is not None
    assert machine.ran == ["b", "b"]


def test_drift_is_told_from_noise(tmp_path: Path) -> None:
    machine = Machine(100.0, 102.0, 110.0, 110.0, 105.0, 104.0)
    reference = with_kernel(machine, tmp_path)
    for _ in range(3):
        reference.time()
    found = reference.steadiness
    assert found is not None
    assert found.latency_us == 104.0
    assert found.drift == pytest.approx(1.1)
    assert found.noise == pytest.approx(1 / 104)
    assert found.timings == 3


@pytest.mark.parametrize(("takes_s", "interval_s"), [(0.01, 25.0), (0.5, 100.0)])
def test_timings_are_rare_and_never_more_than_a_hundredth_of_the_time(
    tmp_path: Path, takes_s: float, interval_s: float
) -> None:
    machine = Machine(10.0, 10.0, takes_s=takes_s)
    reference = with_kernel(machine, tmp_path)
    reference.time()
    ended_s = machine.now_s
    machine.now_s = ended_s + interval_s - 0.001
    assert not reference.is_due
    machine.now_s = ended_s + interval_s
    assert reference.is_due


@pytest.mark.parametrize("answers", [(None, 10.0), (10.0, None), (None, None)])
def test_a_timing_that_fails_is_left_out(tmp_path: Path, answers: tuple[float | None, float | None]) -> None:
    machine = Machine(*answers, 10.0, 10.0)
    reference = with_kernel(machine, tmp_path)
    assert reference.time() is None
    assert reference.steadiness is None
    assert not reference.is_due
    assert reference.time() is not None


def test_closing_removes_the_library_and_keeps_what_was_found(tmp_path: Path) -> None:
    machine = Machine(10.0, 10.0)
    reference = with_kernel(machine, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    reference.time()
    reference.close()
    reference.close()
    assert list(tmp_path.iterdir()) == []
    assert reference.steadiness is not None
    assert not reference.is_due
