"""The search on real candidates: built by real workers, timed by the real runner, winners checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te, topi
from tvm.target import Target

from schedules.space import design_spaces
from tuner.cost_model_store import MemoryCostModelStore
from tuner.events import ListSink, Log, Progress, TrialMeasured
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import Agreement, BuildJob, Built, Failure, TaskSource, Timed
from tuner.measure.runner import LocalRunner
from tuner.records import FailureKind, MemoryRecordStore, Workload
from tuner.request import Budget
from tuner.search.alternatives import Use
from tuner.targets import host_target, tvm_version
from tuner.tuning import Tuning, TuningTask
from tuner.winners import Winners

SPEC = host_target()


@pytest.fixture(scope="module")
def task() -> TuningTask:
    """A small NHWC convolution with bias and ReLU, its weights free to be reordered."""
    data = te.placeholder((1, 14, 14, 32), name="data")
    weight = te.placeholder((3, 3, 32, 32), name="weight")
    bias = te.placeholder((1, 1, 1, 32), name="bias")
    output = topi.nn.relu(topi.add(topi.nn.conv2d_nhwc(data, weight, 1, 1, 1), bias))
    function = te.create_prim_func([data, weight, bias, output]).with_attr("layout_free_buffers", [1])
    mod = tvm.IRModule({"main": function})
    workload = Workload(
        key="conv", tvm_version=tvm_version(), name="conv", module_json=tvm.ir.save_json(mod), flops=3.6e6
    )
    spaces = design_spaces(mod, Target(SPEC.tvm), cores=SPEC.threads, vector_bits=SPEC.vector_bits, seed=1)
    return TuningTask(key="conv", name="conv", workload=workload, uses=(Use(count=2),), spaces=spaces)


@dataclass
class Bench:
    builder: BuildPool
    runner: LocalRunner
    scratch: Path

    def tuning(self, task: TuningTask, store: MemoryRecordStore, sink: ListSink) -> Tuning:
        return Tuning(
            tasks=[task],
            target=SPEC,
            store=store,
            models=MemoryCostModelStore(),
            builder=self.builder,
            runner=self.runner,
            sink=sink,
            scratch=self.scratch,
            seed=1,
        )

    def winners(self, store: MemoryRecordStore, sink: ListSink) -> Winners:
        return Winners(
            target=SPEC,
            store=store,
            builder=self.builder,
            runner=self.runner,
            sink=sink,
            scratch=self.scratch,
            seed=1,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with BuildPool(SPEC, workers=1, timeout_s=60) as builder, LocalRunner(threads=SPEC.threads) as runner:
        yield Bench(builder=builder, runner=runner, scratch=tmp_path_factory.mktemp("scratch"))


def test_a_search_a_resume_and_a_second_job(bench: Bench, task: TuningTask) -> None:
    sink, store = ListSink(), MemoryRecordStore()
    summary = bench.tuning(task, store, sink).run(Budget(trials=24))
    assert summary.ended_by == "budget"
    assert summary.trials == len(store.own()) == 24
    trials = [event for event in sink.events if isinstance(event, TrialMeasured)]
    assert [trial.number for trial in trials] == list(range(1, 25))
    assert any(trial.latency_us for trial in trials)
    assert all("tiles" in trial.knobs for trial in trials)
    progress = [event for event in sink.events if isinstance(event, Progress)]
    assert progress[0].trials_done == 0
    assert progress[-1].fraction == 1.0
    assert list(bench.scratch.glob("candidate-*")) == []

    resumed_sink = ListSink()
    resumed = bench.tuning(task, store, resumed_sink).run(Budget(trials=24))
    assert resumed.trials == 24
    assert not any(isinstance(event, TrialMeasured) for event in resumed_sink.events)

    second_sink, second = ListSink(), MemoryRecordStore(earlier=store.own())
    bench.tuning(task, second, second_sink).run(Budget(trials=8))
    first_report = next(event for event in second_sink.events if isinstance(event, Progress))
    assert first_report.trials_done == 0
    assert first_report.estimated_us == progress[-1].estimated_us
    # TVM may repair a new proposal into a known schedule, but most are new
    known = {record.trace for record in store.own()}
    assert sum(record.trace in known for record in second.own()) <= 4

    chosen = bench.winners(store, sink).choose([task], {})
    assert chosen["conv"].latency_us is not None
    assert list(bench.scratch.glob("*.so")) == []


class WrongOnce(LocalRunner):
    """A runner under which the first schedule that is checked comes out wrong."""

    checked = 0

    def agreement(
        self, library: Built, reference: Built, *, seed: int, timeout_s: float = 120.0
    ) -> Agreement | Failure:
        self.checked += 1
        if self.checked == 1:
            return Agreement(max_abs_error=1.0, max_rel_error=0.5)
        return super().agreement(library, reference, seed=seed, timeout_s=timeout_s)


def test_a_wrong_winner_is_recorded_and_replaced(bench: Bench, task: TuningTask) -> None:
    store, sink = MemoryRecordStore(), ListSink()
    bench.tuning(task, store, sink).run(Budget(trials=16))
    with WrongOnce(threads=SPEC.threads) as runner:
        wrong = Bench(builder=bench.builder, runner=runner, scratch=bench.scratch)
        chosen = wrong.winners(store, sink).choose([task], {})
        assert "conv" in chosen, [event for event in sink.events if isinstance(event, Log)]
        refused = [record for record in store.own() if record.failure is FailureKind.WRONG_RESULT]
        assert len(refused) == 1
        assert refused[0].trace != chosen["conv"].trace
        assert any(isinstance(event, Log) and "refused" in event.message for event in sink.events)
        # and never again
        again = wrong.winners(store, sink).choose([task], {})
        assert "conv" in again, [event for event in sink.events if isinstance(event, Log)]
        assert again["conv"].trace != refused[0].trace


def test_agreement_tells_a_wrong_library_from_a_right_one(bench: Bench, task: TuningTask) -> None:
    space = task.spaces[0]
    trace = space.trace_json(space.decisions(space.random(1, np.random.default_rng(1))[0]))
    doubled = tvm.IRModule({"main": te.create_prim_func(_doubling())})
    sources = [task.source, TaskSource(key="doubled", module_json=tvm.ir.save_json(doubled))]
    jobs = [
        BuildJob(task=sources[0], trace_json=trace, output=bench.scratch / "a.so", repacked_weights=False),
        BuildJob(task=sources[0], trace_json=None, output=bench.scratch / "b.so", repacked_weights=False),
        BuildJob(task=sources[1], trace_json=None, output=bench.scratch / "c.so", repacked_weights=False),
    ]
    scheduled, plain, doubled_built = bench.builder.build(jobs)
    assert isinstance(scheduled, Built), scheduled
    assert isinstance(plain, Built), plain
    assert isinstance(doubled_built, Built), doubled_built
    right = bench.runner.agreement(scheduled, plain, seed=1)
    assert isinstance(right, Agreement)
    assert right.max_rel_error < 1e-5
    (timed,) = bench.runner.time([plain], best_us=None)
    assert isinstance(timed, Timed)
    assert right.reference_us is not None
    assert 0.3 < right.reference_us / timed.latency_us < 3, "timed like a candidate"
    wrong = bench.runner.agreement(plain, doubled_built, seed=1)
    assert isinstance(wrong, Agreement)
    assert wrong.max_rel_error == pytest.approx(0.5)


def _doubling() -> list[te.Tensor]:
    """The task's function with its output doubled."""
    data = te.placeholder((1, 14, 14, 32), name="data")
    weight = te.placeholder((3, 3, 32, 32), name="weight")
    bias = te.placeholder((1, 1, 1, 32), name="bias")
    convolved = topi.add(topi.nn.conv2d_nhwc(data, weight, 1, 1, 1), bias)
    return [data, weight, bias, topi.multiply(topi.nn.relu(convolved), 2.0)]
