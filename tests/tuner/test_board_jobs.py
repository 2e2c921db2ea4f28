"""Whole jobs on boards of a fleet: measured, checked and compared there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.measure.boards import KEY, Boards, boards
from tuner import tune as pipeline
from tuner.bundle import verify_bundle
from tuner.cost_model_store import MemoryCostModelStore
from tuner.events import BaselineMeasured, Event, ListSink, RooflineMeasured, TrialMeasured, UntunedTaskMeasured
from tuner.records import FailureKind, MemoryRecordStore
from tuner.request import Budget, TuneRequest, TuneResult
from tuner.targets import host_target


@pytest.fixture(scope="module")
def fleet() -> Iterator[Boards]:
    with boards() as made:
        made.start()
        made.start()
        yield made


@pytest.fixture(autouse=True)
def _boards_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their networks have one thread, and nobody spins."""
    monkeypatch.setattr("tuner.board_process.UNSEEN_S", 0.0)


def run(fleet: Boards, model: Path, work_dir: Path, *, sink: ListSink, store: MemoryRecordStore) -> TuneResult:
    target = replace(host_target(), name=KEY, device="a board", threads=1)
    request = TuneRequest(
        model_path=model,
        model_name="tiny",
        target=target,
        work_dir=work_dir,
        budget=Budget(trials=16),
        fleet=fleet.tracker,
    )
    return pipeline.tune(request, store=store, models=MemoryCostModelStore(), sink=sink)


def test_a_job_is_measured_on_boards(fleet: Boards, convolutional_model: Path, tmp_path: Path) -> None:
    sink, store = ListSink(), MemoryRecordStore()
    result = run(fleet, convolutional_model, tmp_path, sink=sink, store=store)
    manifest: Any = result.manifest
    assert result.outcome in ("improved", "no_improvement")
    assert manifest["numerics"]["passed"]
    assert manifest["numerics"]["checked_on"] == KEY
    assert manifest["latency"]["median_us"] > 0
    assert manifest["baseline"]["median_us"] > 0
    assert manifest["onnxruntime"] is None
    (baseline,) = [event for event in sink.events if isinstance(event, BaselineMeasured)]
    assert baseline.onnxruntime_us is None
    (roofline,) = [event for event in sink.events if isinstance(event, RooflineMeasured)]
    assert roofline.peak_gflops > 1
    assert 0.1 < roofline.bandwidth_gb_s < 1e3
    assert any(isinstance(event, UntunedTaskMeasured) and event.latency_us > 0 for event in sink.events)
    assert len(store.own()) == 16
    assert all(record.failure is not FailureKind.DEVICE_LOST for record in store.own())
    assert verify_bundle(result.bundle).ok


def test_a_board_that_dies_costs_trials_and_nothing_else(
    fleet: Boards, convolutional_model: Path, tmp_path: Path
) -> None:
    killed = threading.Event()

    class Killer(ListSink):
        def emit(self, *events: Event) -> None:
            super().emit(*events)
            if any(isinstance(event, TrialMeasured) for event in events) and not killed.is_set():
                killed.set()
                fleet.kill(next(iter(fleet.processes)))

    store = MemoryRecordStore()
    result = run(fleet, convolutional_model, tmp_path, sink=Killer(), store=store)
    assert killed.is_set()
    assert result.manifest["numerics"]["passed"]  # type: ignore[index]
    assert len(store.own()) == 16
    lost = [record for record in store.own() if record.failure is FailureKind.DEVICE_LOST]
    assert len(lost) <= 1
