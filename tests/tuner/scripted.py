"""A builder, a runner and a clock that follow a script: what `Tuning` is tested with, without TVM."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from schedules.decisions import DecisionSpace, GeneKind
from tests.tuner.search.spaces import latency_us, matmul_space
from tuner.cost_model_store import CostModelStore, MemoryCostModelStore
from tuner.events import Event, ListSink
from tuner.measure.jobs import Agreement, BuildJob, Built, Decisions, Failure, Timed
from tuner.records import FailureKind, MemoryRecordStore, Record, RecordStore, Workload
from tuner.search.alternatives import Use
from tuner.search.draft import Draft, DraftConfig
from tuner.search.loop import LoopConfig
from tuner.targets import TargetSpec
from tuner.tuning import Tuning, TuningTask

TARGET = TargetSpec(
    name="scripted",
    description="",
    device="no device",
    tvm={"kind": "llvm"},
    triple="x86_64-linux-gnu",
    threads=2,
    vector_bits=512,
)

# Batches of four from small pools: a whole search in milliseconds.
SMALL = LoopConfig(batch=4, first_batch=4, stop_gain=0.0, draft=DraftConfig(pool=32, generations=1))

Step = Callable[[str], None]
Fate = Callable[[Decisions], FailureKind | None]


def nothing(what: str) -> None:
    """A step that goes well."""


def healthy(decisions: Decisions) -> FailureKind | None:
    return None


@dataclass
class FakeClock:
    """Seconds that pass when a fake says so."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class ScriptedBuilder:
    """Writes a file for every candidate; ``step`` is called before each one and may raise."""

    space: DecisionSpace
    clock: FakeClock
    fate: Fate = healthy
    step: Step = nothing
    build_s: float = 0.1
    proposed: list[Decisions] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def build(self, jobs: list[BuildJob]) -> list[Built | Failure]:
        decided = [decisions_of(self.space, job.trace_json) for job in jobs]
        self.proposed += decided
        self.tasks += [job.task.key for job in jobs]
        self.batches.append(len(jobs))
        return [self._build(job, decisions) for job, decisions in zip(jobs, decided, strict=True)]

    def _build(self, job: BuildJob, decisions: Decisions) -> Built | Failure:
        self.step("build")
        self.clock.now_s += self.build_s
        job.output.write_text("library")
        kind = self.fate(decisions)
        if kind is not None:
            return Failure(kind=kind, message=f"scripted {kind}", cost_s=self.build_s)
        return Built(
            library=job.output,
            symbol="main_0",
            arguments=(),
            decisions=decisions,
            trace_json=job.trace_json or "",
            cost_s=self.build_s,
        )


@dataclass
class ScriptedRunner:
    """Latencies from the made-up landscape, times ``slowness``; ``step`` is called before each candidate."""

    space: DecisionSpace
    clock: FakeClock
    fate: Fate = healthy
    step: Step = nothing
    run_s: float = 0.05
    slowness: Callable[[], float] = lambda: 1.0
    timed: list[Decisions] = field(default_factory=list)
    wrong: Fate = healthy
    reference_us: float | None = 1000.0

    def time(self, candidates: list[Built], *, best_us: float | None) -> list[Timed | Failure]:
        assert all(item.library.exists() for item in candidates), "a library was gone before it was run"
        return [self._time(item) for item in candidates]

    def agreement(self, library: Built, reference: Built, *, seed: int) -> Agreement | Failure:
        assert library.library.exists()
        assert reference.library.exists()
        kind = self.wrong(library.decisions)
        if kind not in (None, FailureKind.WRONG_RESULT):
            return Failure(kind=kind, message=f"scripted {kind}")
        error = 0.0 if kind is None else 0.5
        return Agreement(max_abs_error=error, max_rel_error=error, reference_us=self.reference_us)

    def _time(self, item: Built) -> Timed | Failure:
        self.step("run")
        self.clock.now_s += self.run_s
        self.timed.append(item.decisions)
        kind = self.fate(item.decisions)
        if kind is not None:
            return Failure(kind=kind, message=f"scripted {kind}", cost_s=self.run_s)
        genome = self.space.genome(item.decisions)
        assert genome is not None
        found_us = latency_us(self.space, Draft(space=0, genome=genome)) * self.slowness()
        return Timed(latency_us=found_us, spread_us=0.0, cost_s=self.run_s)


@dataclass
class StepSink(ListSink):
    """A list of events; ``step`` is called before each one is taken."""

    def __init__(self, step: Step = nothing) -> None:
        super().__init__()
        self._step = step

    def emit(self, *events: Event) -> None:
        self._step("event")
        super().emit(*events)


class StepStore(MemoryRecordStore):
    """A store in memory; ``step`` is called before and after records are added."""

    step: Step = staticmethod(nothing)

    def add(self, records: Sequence[Record]) -> None:
        self.step("before records")
        super().add(records)
        self.step("after records")


@dataclass(kw_only=True)
class Bench:
    """Fakes that share a clock, over one directory."""

    scratch: Path
    size: int = 64
    seed: int = 1
    config: LoopConfig = field(default_factory=lambda: LoopConfig(stop_gain=0.0))
    store: RecordStore = field(default_factory=StepStore)
    models: CostModelStore = field(default_factory=MemoryCostModelStore)
    sink: ListSink = field(default_factory=StepSink)
    clock: FakeClock = field(default_factory=FakeClock)
    names: tuple[str, ...] = ("matmul",)

    def __post_init__(self) -> None:
        # Nothing replays the trace: decisions are all that the fakes read of it.
        self.space = replace(matmul_space(self.size), instructions=[])
        self.builder = ScriptedBuilder(space=self.space, clock=self.clock)
        self.runner = ScriptedRunner(space=self.space, clock=self.clock)

    @property
    def tasks(self) -> list[TuningTask]:
        return [
            TuningTask(
                key=name,
                name=name,
                workload=workload(name, self.size),
                uses=(Use(count=1 + index),),
                spaces=[self.space],
            )
            for index, name in enumerate(self.names)
        ]

    def tuning(self, **changes: float) -> Tuning:
        return Tuning(
            tasks=self.tasks,
            target=TARGET,
            store=self.store,
            models=self.models,
            builder=self.builder,
            runner=self.runner,
            sink=self.sink,
            scratch=self.scratch,
            seed=self.seed,
            config=self.config,
            clock=self.clock,
            **changes,
        )


def workload(name: str, size: int) -> Workload:
    return Workload(key=name, tvm_version="0", name=name, module_json="{}", flops=2.0 * size**3)


def decisions_of(space: DecisionSpace, trace_json: str | None) -> Decisions:
    """The decisions that a trace of this space holds; the unscheduled function has none."""
    if trace_json is None:
        return ()
    decided = dict(json.loads(trace_json)[1])
    return tuple(
        tuple(decided[gene.instruction]) if gene.kind is GeneKind.TILE else (decided[gene.instruction],)
        for gene in space.genes
    )
