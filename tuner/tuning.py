"""Tuning tasks: the search loop joined to builders, a runner, the record store and the job's events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace
from schedules.knobs import knobs_of_decisions
from tuner.cost_model import Samples, XGBCostModel
from tuner.cost_model_store import CostModelStore
from tuner.events import DriftMeasured, EventSink, Log, Progress, TaskRecalled, TrialMeasured
from tuner.measure.drift import ReferenceKernel
from tuner.measure.jobs import Builder, BuildJob, Built, Failure, Runner, TaskSource, Timed, new_library
from tuner.outlook import Outlook
from tuner.records import Record, RecordStore, Workload, failed_traces
from tuner.request import Budget
from tuner.search.alternatives import Use
from tuner.search.draft import Draft
from tuner.search.features import FEATURES_VERSION, Machine
from tuner.search.loop import Batch, LoopConfig, Outcome, SearchLoop, SearchTask
from tuner.targets import TargetSpec

_TRAINING_ROWS = 50_000
_DEFAULT_ALTERNATIVES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningTask:
    """One distinct task of a network, ready to be searched: its workload, what uses it, and its design spaces.

    ``network_weight_bytes`` are the constant weights of the network when it is computed with this task.
    """

    key: str
    name: str
    workload: Workload
    uses: tuple[Use, ...]
    spaces: list[DecisionSpace]
    network_weight_bytes: int = 0

    @property
    def source(self) -> TaskSource:
        return TaskSource(
            key=self.workload.key,
            module_json=self.workload.module_json,
            network_weight_bytes=self.network_weight_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class TuningSummary:
    """What a search spent and why it ended: ``budget`` (of trials), ``time``, ``converged`` (no batch was worth it),
    ``exhausted`` (every candidate was tried) or ``unmeasured``.

    ``finishing_s`` is what the rest of the job is expected to take. ``drift`` is the slowest timing of one kernel over
    the search ÷ its fastest, ``noise`` by how much two timings side by side differ, as a share; None when nothing was
    measured.
    """

    trials: int
    failures: int
    seconds: float
    ended_by: str
    estimated_us: float
    finishing_s: float = 0.0
    drift: float | None = None
    noise: float | None = None

    def as_dict(self) -> dict[str, object]:
        """What the manifest keeps."""
        return {
            "trials": self.trials,
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
            "ended_by": self.ended_by,
            "estimated_us": self.estimated_us,
            "drift": None if self.drift is None else round(self.drift, 4),
            "noise": None if self.noise is None else round(self.noise, 4),
        }


@dataclass(kw_only=True, eq=False)
class Tuning:
    """A search over the tasks of one network on one target.

    ``builder`` and ``runner`` are owned by the caller. Every batch's records are in ``store`` before the next one is
    measured, so that a job that dies loses the timings of one batch at most. ``afterwards_s`` is what the caller
    expects to take after the search whatever it finds, for the estimate of the time left.
    """

    tasks: Sequence[TuningTask]
    target: TargetSpec
    store: RecordStore
    models: CostModelStore
    builder: Builder
    runner: Runner
    sink: EventSink
    scratch: Path
    seed: int
    config: LoopConfig = field(default_factory=LoopConfig)
    clock: Callable[[], float] = time.monotonic
    afterwards_s: float = 0.0

    def __post_init__(self) -> None:
        self._reference = ReferenceKernel(self.runner, scratch=self.scratch, clock=self.clock)
        self._trials = self._trials_before = 0
        self._failures = 0
        self._by_key = {task.key: task for task in self.tasks}
        self.loop = SearchLoop(
            [
                SearchTask(
                    key=task.key,
                    workload=task.workload.key,
                    uses=task.uses,
                    flops=task.workload.flops,
                    spaces=task.spaces,
                )
                for task in self.tasks
            ],
            XGBCostModel(seed=self.seed),
            machine=machine_of(self.target),
            seed=self.seed,
            config=self.config,
            trained=self._stored_ranker(),
        )

    def run(self, budget: Budget) -> TuningSummary:
        """Search until the budget is spent or nothing is worth another batch. Trials of an earlier attempt at the same
        job count; records of earlier jobs do not, but the search starts from them."""
        started = self.clock()
        earlier = self._recall()
        self._trials = self._trials_before = len(earlier)
        self._failures = sum(1 for record in earlier if record.failure is not None)
        self._report(budget, started)
        try:
            ended_by = self._search(budget, started)
            self._follow_drift()
        finally:
            self._reference.close()
        seconds = self.clock() - started
        finishing_s = self._report(budget, started, ended=True).finishing_s
        self._save_cost_model()
        steadiness = self._reference.steadiness
        return TuningSummary(
            trials=self._trials,
            failures=self._failures,
            seconds=seconds,
            ended_by=ended_by,
            estimated_us=self.loop.estimated_us(),
            finishing_s=finishing_s,
            drift=steadiness.drift if steadiness else None,
            noise=steadiness.noise if steadiness else None,
        )

    def _search(self, budget: Budget, started: float) -> str:
        """Measure round after round; why that ended. While one is built, the next one is drafted."""
        with ThreadPoolExecutor(1, thread_name_prefix="tessera-build") as building:
            ahead: list[Batch] = []
            while True:
                if budget.time_limit_s is not None and self.clock() - started >= budget.time_limit_s:
                    return "time"
                left = (budget.trials - self._trials) if budget.trials is not None else self.config.batch * 64
                if left <= 0:
                    return "budget"
                batches = ahead or self._draft_round(left)
                if not batches:
                    return "exhausted" if self.loop.exhausted else "converged"
                jobs = [self._job(self._by_key[batch.task.key], draft) for batch in batches for draft in batch.drafts]
                try:
                    builds = building.submit(self.builder.build, jobs)
                    ahead = self._draft_round(left - len(jobs))
                    built = iter(builds.result())
                    for batch in batches:
                        self._measure(batch, list(islice(built, len(batch.drafts))))
                finally:
                    for job in jobs:
                        job.output.unlink(missing_ok=True)
                if self._reference.is_due:
                    self._follow_drift()
                self._report(budget, started)

    def _draft_round(self, left: int) -> list[Batch]:
        """As many batches as fill one of the usual size, since first looks are small: workers that build for several
        tasks at a time seldom wait for each other."""
        batches: list[Batch] = []
        while (count := sum(len(batch.drafts) for batch in batches)) < min(left, self.config.batch):
            batch = self.loop.propose(left - count)
            if batch is None:
                break
            batches.append(batch)
        return batches

    def _follow_drift(self) -> None:
        steadiness = self._reference.time()
        if steadiness is not None:
            self.sink.emit(DriftMeasured(**asdict(steadiness)))

    def recall_only(self) -> TuningSummary:
        """No measuring: what earlier jobs stored is all there is (DESIGN's outcome ``unmeasured``)."""
        self._recall()
        return TuningSummary(
            trials=0, failures=0, seconds=0.0, ended_by="unmeasured", estimated_us=self.loop.estimated_us()
        )

    def default_traces(self, task: TuningTask) -> list[str]:
        """Schedules of ours for a task that was left untuned, best guess first, unmeasured; empty without a space.

        TVM leaves a function without a schedule as naive loops. Here it gets what the search would measure next:
        tiled, vectorized, parallel, ranked by the cost model where it has learned anything. Several, because a
        postprocessor may refuse one.
        """
        drafts = self.loop.guesses(task.key, _DEFAULT_ALTERNATIVES) if task.spaces else []
        spaces = [task.spaces[draft.space] for draft in drafts]
        return [space.trace_json(space.decisions(draft.genome)) for space, draft in zip(spaces, drafts, strict=True)]

    def _recall(self) -> list[Record]:
        others = self.store.training_set(
            target_fingerprint=self.target.fingerprint, features_version=FEATURES_VERSION, limit=2_000
        )
        own_workloads = {task.workload.key for task in self.tasks}
        self.loop.learn_from_other_work([record for record in others if record.workload not in own_workloads])
        for task in self.tasks:
            self.store.add_workload(task.workload)
            seen = self.store.seen(task.workload.key, target_fingerprint=self.target.fingerprint)
            self.loop.recall(task.key, seen)
            failed = failed_traces(seen)
            sound = [record for record in seen if record.trace not in failed]
            best = min(sound, key=lambda record: record.latency_us or math.inf, default=None)
            if best is not None and best.latency_us is not None:
                self.sink.emit(TaskRecalled(task=task.key, best_us=best.latency_us, knobs=best.knobs))
        return self.store.own()

    def _measure(self, batch: Batch, built: Sequence[Built | Failure]) -> None:
        task = self._by_key[batch.task.key]
        best_us = self.loop.best_us(task.key)
        runnable = [item for item in built if isinstance(item, Built)]
        timed = self.runner.time(runnable, best_us=best_us)
        self._reference.offer(runnable, timed)
        timings = iter(timed)
        results = [next(timings) if isinstance(item, Built) else item for item in built]
        taken = [self._taken(task, draft, item) for draft, item in zip(batch.drafts, built, strict=True)]
        features = self.loop.features(task.key, taken)
        records = [
            self._record(task, draft, item, result, row)
            for draft, item, result, row in zip(taken, built, results, features, strict=True)
        ]
        self.store.add(records)
        outcomes = [
            Outcome(
                draft=draft,
                latency_us=record.latency_us,
                cost_s=record.cost_s,
                failure=record.failure,
                build_s=item.cost_s,
            )
            for draft, record, item in zip(taken, records, built, strict=True)
        ]
        self.loop.observe(batch, outcomes)
        self._emit_trials(task, records, best_us)

    def _job(self, task: TuningTask, draft: Draft) -> BuildJob:
        space = task.spaces[draft.space]
        return BuildJob(
            task=task.source,
            trace_json=space.trace_json(space.decisions(draft.genome)),
            output=new_library(self.scratch),
            gene_instructions=tuple(gene.instruction for gene in space.genes),
            quick=True,
        )

    @staticmethod
    def _taken(task: TuningTask, draft: Draft, item: Built | Failure) -> Draft:
        """The draft as it was replayed: TVM repairs decisions."""
        if isinstance(item, Failure):
            return draft
        genome = task.spaces[draft.space].genome(item.decisions)
        return draft if genome is None else Draft(space=draft.space, genome=genome)

    def _record(
        self,
        task: TuningTask,
        taken: Draft,
        item: Built | Failure,
        result: Timed | Failure,
        features: NDArray[np.float32],
    ) -> Record:
        space = task.spaces[taken.space]
        decisions = item.decisions if isinstance(item, Built) else space.decisions(taken.genome)
        return Record(
            workload=task.workload.key,
            target_fingerprint=self.target.fingerprint,
            variant=space.variant,
            decisions=decisions,
            trace=space.trace_json(decisions),
            latency_us=result.latency_us if isinstance(result, Timed) else None,
            spread_us=result.spread_us if isinstance(result, Timed) else None,
            failure=result.kind if isinstance(result, Failure) else None,
            failure_message=result.message if isinstance(result, Failure) else "",
            knobs=knobs_of_decisions(space, decisions),
            features=tuple(features.tolist()),
            features_version=FEATURES_VERSION,
            cost_s=result.cost_s + (item.cost_s if isinstance(item, Built) else 0.0),
        )

    def _emit_trials(self, task: TuningTask, records: list[Record], best_us: float | None) -> None:
        estimated_us = self.loop.estimated_us()
        events = []
        for record in records:
            self._trials += 1
            self._failures += record.failure is not None
            if record.latency_us is not None:
                best_us = record.latency_us if best_us is None else min(best_us, record.latency_us)
            events.append(
                TrialMeasured(
                    number=self._trials,
                    task=task.key,
                    latency_us=record.latency_us,
                    failure=record.failure.value if record.failure else None,
                    task_best_us=best_us,
                    estimated_us=estimated_us,
                    knobs=record.knobs,
                )
            )
        self.sink.emit(*events)

    def _report(self, budget: Budget, started: float, *, ended: bool = False) -> Outlook:
        outlook = Outlook(
            budget=budget,
            trials=self._trials,
            trials_here=self._trials - self._trials_before,
            spent_s=self.clock() - started,
            winners=sum(1 for task in self.tasks if self.loop.best_us(task.key) is not None),
            afterwards_s=self.afterwards_s,
        )
        self.sink.emit(
            Progress(
                trials_done=self._trials,
                trials_total=budget.trials,
                fraction=1.0 if ended else outlook.fraction,
                eta_s=outlook.finishing_s if ended else outlook.eta_s,
                estimated_us=self.loop.estimated_us(),
            )
        )
        return outlook

    def _stored_ranker(self) -> XGBCostModel | None:
        stored = self.models.load(self.target.fingerprint)
        if stored is None or stored.features_version != FEATURES_VERSION:
            return None
        return XGBCostModel.load(stored, seed=self.seed)

    def _save_cost_model(self) -> None:
        records = self.store.training_set(
            target_fingerprint=self.target.fingerprint, features_version=FEATURES_VERSION, limit=_TRAINING_ROWS
        )
        samples = Samples.of(records)
        if len(samples) < 32:
            return
        model = XGBCostModel(seed=self.seed)
        model.fit(samples.features, samples.latency_us, samples.workloads)
        stored = model.store(samples, target_fingerprint=self.target.fingerprint, features_version=FEATURES_VERSION)
        version = self.models.save(stored)
        quality = ", ".join(f"{name} {value:.2f}" for name, value in stored.rank_quality.items())
        self.sink.emit(
            Log(message=f"cost model version {version}: {len(samples)} samples, held-out {quality or 'n/a'}")
        )


def machine_of(target: TargetSpec) -> Machine:
    return Machine(
        threads=target.threads,
        vector_bits=target.vector_bits,
        l1_bytes=target.cache_bytes.get("l1", 32 * 1024),
        l2_bytes=target.cache_bytes.get("l2", 1024 * 1024),
        is_gpu=target.is_gpu,
    )
