"""The whole job on small networks: what is shipped, what is said, and what happens when a build is wrong."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest

from schedules.winograd import WINOGRAD, transformed_weights
from tests import models
from tests.schedules.networks import Network
from tuner import tune as pipeline
from tuner.bundle import verify_bundle
from tuner.compare import Latency
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import VerificationError, WorkerError
from tuner.events import (
    BaselineMeasured,
    Event,
    Finished,
    ListSink,
    Log,
    Progress,
    RooflineMeasured,
    Stage,
    StageStarted,
    TasksExtracted,
    UntunedTaskMeasured,
)
from tuner.records import MemoryRecordStore, Record
from tuner.request import Budget, TuneRequest, TuneResult
from tuner.search.alternatives import USUAL_WAY, totals_us
from tuner.targets import host_target
from tuner.verify import NumericsReport, OutputNumerics, verify_module

Verify = Callable[..., NumericsReport]


def request(model: Path, work_dir: Path, **changes: Any) -> TuneRequest:
    settings: dict[str, Any] = {"budget": Budget(trials=12), "seed": 3} | changes
    work_dir.mkdir(exist_ok=True)
    return TuneRequest(model_path=model, model_name="tiny", target=host_target(), work_dir=work_dir, **settings)


def run(asked: TuneRequest, *, store: MemoryRecordStore, sink: ListSink | None = None) -> TuneResult:
    return pipeline.tune(asked, store=store, models=MemoryCostModelStore(), sink=sink or ListSink())


def _is_behind_the_search(event: Event) -> bool:
    stages = (Stage.BUILD, Stage.VERIFY, Stage.BENCHMARK, Stage.PACKAGE)
    return isinstance(event, StageStarted) and event.stage in stages


def wrong_report(**_: object) -> NumericsReport:
    output = OutputNumerics(
        name="y", max_abs_error=1.0, max_rel_error=0.5, tolerance=1e-4, tolerance_reason="", passed=False
    )
    return NumericsReport(samples=1, outputs=(output,))


@pytest.mark.slow
def test_a_job_a_second_job_and_one_without_measuring(convolutional_model: Path, tmp_path: Path) -> None:
    store, sink = MemoryRecordStore(), ListSink()
    result = run(request(convolutional_model, tmp_path / "first"), store=store, sink=sink)
    assert [event.stage for event in sink.events if isinstance(event, StageStarted)] == list(Stage)
    assert any(isinstance(event, BaselineMeasured) and event.onnxruntime_us for event in sink.events)
    (roofline,) = [event for event in sink.events if isinstance(event, RooflineMeasured)]
    assert roofline.peak_gflops > 1
    assert roofline.bandwidth_gb_s > 0.1
    (extracted,) = [event for event in sink.events if isinstance(event, TasksExtracted)]
    assert all(task.traffic_bytes for task in extracted.tasks)
    untuned_us = {event.task: event.latency_us for event in sink.events if isinstance(event, UntunedTaskMeasured)}
    assert untuned_us
    assert untuned_us.keys() <= {task.key for task in extracted.tasks}
    assert all(latency_us > 0 for latency_us in untuned_us.values())
    assert any(isinstance(event, TasksExtracted) and event.tasks for event in sink.events)
    finished = sink.events[-1]
    assert isinstance(finished, Finished)
    assert finished.outcome == result.outcome
    assert finished.max_rel_error <= 1e-4
    assert result.manifest["seed"] == 3
    search: Any = result.manifest["search"]
    assert search["drift"] >= 1.0
    assert search["noise"] >= 0.0
    behind = [after for event, after in pairwise(sink.events) if _is_behind_the_search(event)]
    assert [(type(event), getattr(event, "fraction", None)) for event in behind] == [(Progress, 1.0)] * 4
    left_s = [event.eta_s or 0.0 for event in behind if isinstance(event, Progress)]
    assert left_s[0] > 0
    assert left_s == sorted(left_s, reverse=True)
    assert verify_bundle(result.bundle).ok
    assert [path.name for path in (tmp_path / "first").iterdir()] == [result.bundle.name]
    with tarfile.open(result.bundle) as archive:
        stored = json.load(archive.extractfile("records.json") or pytest.fail("no records"))
    assert {record["workload"] for record in stored["records"]} <= {workload["key"] for workload in stored["workloads"]}

    second_sink, second = ListSink(), MemoryRecordStore(earlier=store.own())
    run(request(convolutional_model, tmp_path / "second"), store=second, sink=second_sink)
    last = [event for event in sink.events if isinstance(event, Progress)][-1]
    start = next(event for event in second_sink.events if isinstance(event, Progress))
    assert start.estimated_us is not None
    assert last.estimated_us is not None
    assert start.estimated_us <= last.estimated_us

    unmeasured_sink, unmeasured = ListSink(), MemoryRecordStore(earlier=store.own())
    asked = request(convolutional_model, tmp_path / "third", measure="none")
    answer = run(asked, store=unmeasured, sink=unmeasured_sink)
    assert answer.outcome == "unmeasured"
    assert answer.manifest["latency"] is None
    assert answer.manifest["shipped"] == "tuned"
    measured = (BaselineMeasured, RooflineMeasured, UntunedTaskMeasured)
    assert not any(isinstance(event, measured) for event in unmeasured_sink.events)
    assert unmeasured.own() == []
    assert verify_bundle(answer.bundle).ok


@pytest.mark.parametrize(("faster", "level"), [("tuned", 3), ("tuned-O2", 2)])
def test_the_network_is_shipped_at_the_faster_of_llvms_levels(
    faster: str, level: int, perceptron_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = pipeline.Place.compare
    compared: list[set[str]] = []

    def decided(*arguments: Any, **options: Any) -> dict[str, Latency]:
        latencies = compare(*arguments, **options)
        compared.append(set(latencies))
        slow_us = 10 * max(latency.median_us for latency in latencies.values())
        chosen = "tuned" if "untuned" in latencies else faster
        return {
            name: latency if name == chosen else replace(latency, median_us=slow_us)
            for name, latency in latencies.items()
        }

    monkeypatch.setattr(pipeline.Place, "compare", decided)
    asked = request(perceptron_model, tmp_path / "job", budget=Budget(trials=4))
    result = run(asked, store=MemoryRecordStore())
    assert {"tuned", "tuned-O2"} in compared
    assert result.manifest["shipped"] == "tuned"
    search: Any = result.manifest["search"]
    assert search["llvm_opt_level"] == level
    assert verify_bundle(result.bundle).ok


def test_a_job_goes_on_where_no_roofline_can_be_measured(
    perceptron_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"no_such_kernel": {"shapes": [[1]], "flops": 1}}
    monkeypatch.setattr(pipeline, "describe_roofline", lambda spec: missing)
    sink, asked = ListSink(), request(perceptron_model, tmp_path / "job", budget=Budget(trials=4))
    result = run(asked, store=MemoryRecordStore(), sink=sink)
    assert verify_bundle(result.bundle).ok
    assert any(isinstance(event, BaselineMeasured) for event in sink.events)
    assert not any(isinstance(event, RooflineMeasured) for event in sink.events)
    (told,) = [event for event in sink.events if isinstance(event, Log) and "roofline" in event.message]
    assert told.level == "warning"


@pytest.mark.parametrize("crash", [False, True])
def test_a_wrong_tuned_build_is_not_shipped(
    perceptron_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: bool
) -> None:
    honest: Verify = verify_module

    def verify(module: Path, *arguments: Any, **options: Any) -> NumericsReport:
        if module.name == "untuned.so":
            return honest(module, *arguments, **options)
        if crash:
            raise WorkerError("The network died by SIGSEGV.")
        return wrong_report()

    monkeypatch.setattr("tuner.place.verify_module", verify)
    result = run(request(perceptron_model, tmp_path / "job"), store=MemoryRecordStore())
    assert result.outcome == "no_improvement"
    assert result.manifest["shipped"] == "untuned"
    assert verify_bundle(result.bundle).ok


def test_default_schedules_are_left_out_when_they_are_wrong(
    convolutional_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest: Verify = verify_module

    def verify(module: Path, *arguments: Any, **options: Any) -> NumericsReport:
        return wrong_report() if module.name == "tuned.so" else honest(module, *arguments, **options)

    monkeypatch.setattr("tuner.place.verify_module", verify)
    result = run(request(convolutional_model, tmp_path / "job"), store=MemoryRecordStore())
    assert result.manifest["numerics"]["passed"]
    assert verify_bundle(result.bundle).ok


def test_nothing_is_shipped_when_every_build_is_wrong(
    perceptron_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.place.verify_module", lambda *_, **__: wrong_report())
    asked = request(perceptron_model, tmp_path / "job")
    with pytest.raises(VerificationError) as caught:
        run(asked, store=MemoryRecordStore())
    assert caught.value.code == "verification_failed"
    assert not list(asked.work_dir.glob("*.tar.gz"))


def test_a_resumed_job_measures_nothing_twice(perceptron_model: Path, tmp_path: Path) -> None:
    store, sink = MemoryRecordStore(), ListSink()
    run(request(perceptron_model, tmp_path / "job"), store=store)
    before: list[Record] = store.own()
    run(request(perceptron_model, tmp_path / "job"), store=store, sink=sink)
    assert store.own() == before
    assert next(event for event in sink.events if isinstance(event, Progress)).trials_done == len(before)


@pytest.fixture
def winograd_wherever_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways are searched even with few trials, and Winograd's is taken, faster or not."""
    monkeypatch.setattr("tuner.ways._TRIALS_PER_FUNCTION", 0)
    monkeypatch.setattr(
        "tuner.limit.choose_ways",
        lambda tasks: {
            choice: WINOGRAD if WINOGRAD in ways else USUAL_WAY for choice, ways in totals_us(tasks).items()
        },
    )


@pytest.mark.usefixtures("winograd_wherever_measured")
@pytest.mark.slow
def test_a_convolution_by_winograd_is_searched_built_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.write(models.two_convolutions(), tmp_path / "two.onnx")
    store, sink = MemoryRecordStore(), ListSink()
    asked = request(model, tmp_path / "job", budget=Budget(trials=96))
    result = run(asked, store=store, sink=sink)
    (compared,) = result.manifest["search"]["choices"].values()  # type: ignore[index]
    assert compared["way"] == WINOGRAD
    assert compared["us"][USUAL_WAY] > 0
    assert compared["us"][WINOGRAD] > 0
    assert result.manifest["numerics"]["passed"]  # type: ignore[index]
    assert 0 < result.manifest["numerics"]["max_rel_error"] < 1e-5  # type: ignore[index]
    assert verify_bundle(result.bundle).ok
    (extracted,) = [event for event in sink.events if isinstance(event, TasksExtracted)]
    ways = [use.alternative.way for task in extracted.tasks for use in task.uses if use.alternative]
    monkeypatch.undo()
    small = request(model, tmp_path / "small", budget=Budget(trials=1))
    second_sink = ListSink()
    run(small, store=MemoryRecordStore(earlier=store.own()), sink=second_sink)
    (again,) = [event for event in second_sink.events if isinstance(event, TasksExtracted)]
    assert again.tasks == extracted.tasks  # what an earlier job has measured is worth having, however few the trials
    first_sink = ListSink()
    run(small, store=MemoryRecordStore(), sink=first_sink)
    (alone,) = [event for event in first_sink.events if isinstance(event, TasksExtracted)]
    assert {use.alternative.way for task in alone.tasks for use in task.uses if use.alternative} == {USUAL_WAY}
    assert sorted(ways) == [USUAL_WAY, WINOGRAD, WINOGRAD, WINOGRAD]  # the first convolution has one way only


@pytest.mark.usefixtures("winograd_wherever_measured")
@pytest.mark.slow
def test_a_network_that_winograd_makes_wrong_is_built_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "schedules.graph.winograd.transformed_weights", lambda weights: 1.01 * transformed_weights(weights)
    )
    # Where the tuned build is right it is shipped, however the machine times it.
    monkeypatch.setattr("tuner.tune.choose", lambda **_: "improved")
    model = models.write(models.two_convolutions(), tmp_path / "two.onnx")
    sink = ListSink()
    asked = request(model, tmp_path / "job", budget=Budget(trials=96))
    result = run(asked, store=MemoryRecordStore(), sink=sink)
    assert any(isinstance(event, Log) and "without them" in event.message for event in sink.events)
    assert result.manifest["shipped"] == "tuned"
    assert result.manifest["numerics"]["passed"]  # type: ignore[index]
    assert verify_bundle(result.bundle).ok


@pytest.mark.slow
def test_a_network_is_built_both_ways_where_windows_come_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.ways._TRIALS_PER_FUNCTION", 0)
    monkeypatch.setattr("tuner.ways._NEAR", 1e9)
    monkeypatch.setattr(
        "tuner.limit.choose_ways",
        lambda tasks: dict.fromkeys(totals_us((task, us or 0.0) for task, us in tasks), USUAL_WAY),
    )
    n = Network(seed=1)
    wide = n.node("Relu", n.conv("x", inputs=8, outputs=32, kernel=1))
    onnx.save(n.model(n.conv(wide, inputs=32, outputs=32, groups=32), shape=(1, 8, 24, 24)), tmp_path / "chain.onnx")
    sink = ListSink()
    small_cache = replace(host_target(), cache_bytes={"l1": 1024, "l2": 1024})
    # Enough for a batch of each task: a way with an unmeasured task is not compared with others.
    asked = replace(request(tmp_path / "chain.onnx", tmp_path / "job", budget=Budget(trials=256)), target=small_cache)
    result = run(asked, store=MemoryRecordStore(), sink=sink)
    assert result.manifest["numerics"]["passed"]  # type: ignore[index]
    ways, levels = [
        event.message for event in sink.events if isinstance(event, Log) and event.message.startswith("built: ")
    ]
    assert "tuned" in ways
    assert "windows" in ways
    assert "-O2" in levels
