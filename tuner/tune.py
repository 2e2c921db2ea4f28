"""The whole job: an ONNX model in, a verified bundle out. One process per job runs `tune` from top to bottom.

A job that died is started again with the same work directory and store: the search goes on from its records, everything
after it is done anew from them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from schedules.graph.pipeline import prepare
from tuner.bundle import bundle_name, write_bundle
from tuner.compare import Contender, Latency, choose, compare
from tuner.compile import build_scheduled, build_untuned
from tuner.cost_model_store import CostModelStore
from tuner.errors import WorkerError
from tuner.events import (
    BaselineMeasured,
    EventSink,
    Finished,
    Log,
    Preflight,
    Progress,
    Stage,
    StageStarted,
    TasksExtracted,
    TaskSummary,
)
from tuner.frontend.convert import ImportedModel, import_model
from tuner.manifest import describe
from tuner.measure.builder import BuildPool
from tuner.measure.runner import LocalRunner
from tuner.plan import Plan, compare_ways, needed_tasks, without_unknown_ways
from tuner.records import RecordStore
from tuner.reference import load_samples, random_samples, reference_outputs
from tuner.request import TuneRequest, TuneResult
from tuner.tasks import ExtractedTask, extract_tasks
from tuner.tuning import Tuning, TuningSummary
from tuner.verify import NumericsReport, verify_module
from tuner.ways import Ways
from tuner.winners import Winners

Sample = Mapping[str, np.ndarray]
_BASELINE_BUDGET_S = 6.0
_COMPARISON_BUDGET_S = 20.0


def tune(request: TuneRequest, *, store: RecordStore, models: CostModelStore, sink: EventSink) -> TuneResult:
    """Tune, build, verify, compare and package one model.

    Raises `TesseraError` with a stable code for whatever a person can act on. ``request.work_dir`` keeps nothing but
    the finished bundle afterwards.
    """
    return _Job(request=request, store=store, models=models, sink=sink).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Checked:
    """A built network and what was found of it."""

    module: Path
    numerics: NumericsReport


@dataclass(kw_only=True, eq=False)
class _Job:
    request: TuneRequest
    store: RecordStore
    models: CostModelStore
    sink: EventSink

    def run(self) -> TuneResult:
        request, started = self.request, time.monotonic()
        self._scratch = request.work_dir / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        self._begin(Stage.IMPORT)
        model = import_model(request.model_path, request.input_shapes)
        self.sink.emit(Preflight(report=model.preflight.as_dict()))
        self._samples, self._reference = self._references(model)
        self._begin(Stage.PARTITION)
        prepared = prepare(model.module)
        self._begin(Stage.EXTRACT)
        ways = Ways(prepared, request.target)
        tasks = self._extract(ways)
        untuned = self._untuned(model)
        self._begin(Stage.TUNE)
        plan, summary = self._tune(tasks)
        self._begin(Stage.BUILD, summary)
        module = self._build("tuned", ways, tasks, plan)
        self._begin(Stage.VERIFY, summary)
        tuned = self._verify(module, model)
        if not tuned.numerics.passed and plan.uses_winograd:
            self._log("The build with Winograd's convolutions is wrong; trying without them.", level="warning")
            plan = plan.directly(tasks)
            tuned = self._verify(self._build("direct", ways, tasks, plan), model)
        if not tuned.numerics.passed:
            # Winners were each checked alone, default schedules were not: leave those out.
            self._log("The build with default schedules is wrong; trying without them.", level="warning")
            tuned = self._verify(self._build("winners", ways, tasks, plan.without_defaults()), model)
        self._begin(Stage.BENCHMARK, summary)
        outcome, shipped, latencies = self._compare(tuned, untuned, model)
        self._begin(Stage.PACKAGE, summary)
        build = "tuned" if shipped is tuned else "untuned"
        records = plan.winners if shipped is tuned else {}
        search = {
            **summary.as_dict(),
            "tasks": len(needed_tasks(tasks, plan.ways)),
            "tasks_tuned": len(records),
            "convolutions": plan.convolutions(),
            "job_seconds": round(time.monotonic() - started, 1),
        }
        bundle = request.work_dir / bundle_name(request.model_name, request.target.name)
        manifest = write_bundle(
            path=bundle,
            module=shipped.module,
            manifest=describe(
                request,
                model,
                outcome=outcome,
                numerics=shipped.numerics,
                latencies=latencies,
                shipped=build,
                search=search,
            ),
            samples=self._samples,
            reference=self._reference,
            records=[asdict(record) for record in records.values()],
            workloads=[asdict(task.tuning.workload) for task in tasks if task.tuning.key in records],
        )
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._finish(outcome, shipped.numerics, latencies, build=build)
        return TuneResult(outcome=outcome, bundle=bundle, manifest=manifest)

    def _begin(self, stage: Stage, summary: TuningSummary | None = None) -> None:
        """Say that a stage begins, and behind the search what is left of the time that was expected for the rest."""
        self.sink.emit(StageStarted(stage=stage))
        if summary is not None and self.request.measure == "device":
            left_s = self._search_ended + summary.finishing_s - time.monotonic()
            self.sink.emit(
                Progress(
                    trials_done=summary.trials,
                    trials_total=self.request.budget.trials,
                    fraction=1.0,
                    eta_s=left_s if left_s > 0 else None,
                    estimated_us=summary.estimated_us,
                )
            )

    def _log(self, message: str, *, level: str = "info") -> None:
        self.sink.emit(Log(message=message, level=level))

    def _references(self, model: ImportedModel) -> tuple[list[Sample], list[Sample]]:
        """Three seeded random inputs and whatever the user gave, with ONNX Runtime's outputs on them."""
        samples: list[Sample] = list(random_samples(model.inputs, seed=self.request.seed))
        if self.request.samples is not None:
            samples += load_samples(self.request.samples, model.inputs)
        reference = reference_outputs(
            self.request.model_path,
            samples,
            inputs=model.inputs,
            outputs=model.outputs,
            threads=self.request.target.threads,
        )
        return samples, list(reference)

    def _extract(self, ways: Ways) -> list[ExtractedTask]:
        tasks = extract_tasks(ways.forms, self.request.target, seed=self.request.seed)
        if self.request.measure != "device" or not ways.can_be_compared(self.request.budget):
            tasks = without_unknown_ways(tasks, self.store, self.request.target)
        self.sink.emit(
            TasksExtracted(
                tasks=tuple(
                    TaskSummary(
                        key=task.tuning.key,
                        name=task.tuning.name,
                        workload=task.tuning.workload.key,
                        weight=task.tuning.weight,
                        flops=task.tuning.workload.flops,
                        tunable=task.tunable,
                        alternative=task.tuning.alternative,
                    )
                    for task in tasks
                )
            )
        )
        for task in tasks:
            if task.spaces_error:
                self._log(f"{task.tuning.name} keeps the default schedule: {task.spaces_error}", level="warning")
        return tasks

    def _untuned(self, model: ImportedModel) -> Path:
        """TVM's default build, timed once so that the search's progress has something to stand against."""
        module = self._scratch / "untuned.so"
        started = time.monotonic()
        build_untuned(model.module, module, spec=self.request.target)
        built = time.monotonic()
        if self.request.measure == "device":
            latencies = self._timed({"untuned": module}, model, time_budget_s=_BASELINE_BUDGET_S)
            self.sink.emit(
                BaselineMeasured(
                    latency_us=latencies["untuned"].median_us,
                    spread_us=latencies["untuned"].spread_us,
                    onnxruntime_us=latencies["onnxruntime"].median_us,
                )
            )
        # The tuned network is built once, then timed for longer than the untuned one here, beside it.
        self._afterwards_s = built - started + 2 * (time.monotonic() - built)
        return module

    def _tune(self, tasks: Sequence[ExtractedTask]) -> tuple[Plan, TuningSummary]:
        spec, request = self.request.target, self.request
        tunable = [task.tuning for task in tasks if task.tunable]
        with BuildPool(spec, workers=spec.threads) as builder, LocalRunner(threads=spec.threads) as runner:
            tuning = Tuning(
                tasks=tunable,
                target=spec,
                store=self.store,
                models=self.models,
                builder=builder,
                runner=runner,
                sink=self.sink,
                scratch=self._scratch,
                seed=request.seed,
                afterwards_s=self._afterwards_s,
            )
            summary = tuning.run(request.budget) if request.measure == "device" else tuning.recall_only()
            self._search_ended = time.monotonic()
            self._log(f"search ended by {summary.ended_by}: {summary.trials} trials in {summary.seconds:.0f} s")
            if summary.drift is not None and summary.noise is not None:
                self._log(f"machine drift while searching: {summary.drift:.2f}×, noise {summary.noise:.1%}")
            ways, compared_us = compare_ways(tasks, tuning.loop.best_us)
            for choice, latencies in compared_us.items():
                each = ", ".join(f"{way} {latency_us:.0f} µs" for way, latency_us in latencies.items())
                self._log(f"convolution {choice}: {each}; computed {ways[choice]}")
            winners = Winners(
                target=spec,
                store=self.store,
                builder=builder,
                runner=runner,
                sink=self.sink,
                scratch=self._scratch,
                seed=request.seed,
                measure=request.measure == "device",
                drift=summary.drift,
            ).choose([task.tuning for task in needed_tasks(tasks, ways) if task.tunable])
            untuned = [task for task in tunable if task.key not in winners]
            defaults = {task.key: tuning.default_traces(task) for task in untuned}
        return Plan(ways=ways, compared_us=compared_us, winners=winners, defaults=defaults), summary

    def _build(self, name: str, ways: Ways, tasks: Sequence[ExtractedTask], plan: Plan) -> Path:
        """The network with the winners' schedules, and default schedules for every other task."""
        spec = self.request.target
        module = self._scratch / f"{name}.so"
        fused = ways.fused(plan.ways)
        unscheduled = build_scheduled(fused, plan.traces(fused, tasks), module, spec=spec)
        if unscheduled:
            self._log(f"without a schedule: {', '.join(unscheduled)}", level="warning")
        return module

    def _verify(self, module: Path, model: ImportedModel) -> _Checked:
        """A built network against ONNX Runtime's outputs on every sample. One that crashes is wrong, no more."""
        try:
            numerics = verify_module(
                module,
                self._samples,
                self._reference,
                inputs=model.inputs,
                outputs=model.outputs,
                threads=self.request.target.threads,
            )
        except WorkerError as error:
            self._log(f"{module.stem} cannot be run: {error.message}", level="warning")
            numerics = NumericsReport(samples=0, outputs=())
        return _Checked(module=module, numerics=numerics)

    def _compare(
        self, tuned: _Checked, untuned: Path, model: ImportedModel
    ) -> tuple[str, _Checked, dict[str, Latency]]:
        """Which build is shipped: never one that is wrong, never a tuned one that is not faster than the untuned.

        The untuned build is checked only when it is to be shipped: its naive loops can take minutes.
        """
        measured = self.request.measure == "device"
        latencies: dict[str, Latency] = {}
        outcome = "no_improvement" if measured else "unmeasured"
        if measured:
            modules = {"untuned": untuned} | ({"tuned": tuned.module} if tuned.numerics.passed else {})
            latencies = self._timed(modules, model, time_budget_s=_COMPARISON_BUDGET_S)
            if tuned.numerics.passed:
                outcome = choose(untuned=latencies["untuned"], tuned=latencies["tuned"])
        if tuned.numerics.passed and outcome != "no_improvement":
            return outcome, tuned, latencies
        plain = self._verify(untuned, model)
        if plain.numerics.passed:
            return outcome, plain, latencies
        tuned.numerics.require()
        return outcome, tuned, latencies

    def _timed(self, modules: Mapping[str, Path], model: ImportedModel, *, time_budget_s: float) -> dict[str, Latency]:
        contenders = {name: Contender(path=path) for name, path in modules.items()}
        contenders["onnxruntime"] = Contender(path=self.request.model_path, kind="onnxruntime")
        return compare(
            contenders, model.inputs, self._samples[0], threads=self.request.target.threads, time_budget_s=time_budget_s
        )

    def _finish(self, outcome: str, numerics: NumericsReport, latencies: Mapping[str, Latency], *, build: str) -> None:
        shipped, untuned, onnxruntime = (latencies.get(name) for name in (build, "untuned", "onnxruntime"))
        self.sink.emit(
            Finished(
                outcome=outcome,
                tuned_us=shipped.median_us if shipped else None,
                tuned_spread_us=shipped.spread_us if shipped else None,
                untuned_us=untuned.median_us if untuned else None,
                onnxruntime_us=onnxruntime.median_us if onnxruntime else None,
                max_abs_error=numerics.max_abs_error,
                max_rel_error=numerics.max_rel_error,
            )
        )
