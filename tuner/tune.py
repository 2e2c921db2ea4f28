"""The whole job: an ONNX model in, a verified bundle out. One process per job runs `tune` from top to bottom.

A job that died is started again with the same work directory and store: the search goes on from its records, everything
after it is done anew from them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from schedules.graph.pipeline import prepare
from tuner.builds import Build, Builds, CheckedBuild
from tuner.bundle import bundle_name, write_bundle
from tuner.compare import Latency, choose
from tuner.compile import (
    LLVM_OPT_LEVELS,
    least_memory_first,
)
from tuner.cost_model_store import CostModelStore
from tuner.events import (
    BaselineMeasured,
    EventSink,
    Finished,
    Log,
    Preflight,
    Progress,
    RooflineMeasured,
    Stage,
    StageStarted,
    TasksExtracted,
    TaskSummary,
)
from tuner.frontend.convert import ImportedModel, import_model
from tuner.limit import MemoryLimit
from tuner.manifest import describe
from tuner.measure.builder import BuildPool
from tuner.memory import timeline_as_dicts
from tuner.network_process import RunnableNetwork, Sample
from tuner.place import Place
from tuner.plan import Plan, measured_completely, needed_tasks, without_unknown_ways
from tuner.records import Record, RecordStore
from tuner.reference import load_samples, random_samples, reference_outputs
from tuner.request import TuneRequest, TuneResult
from tuner.roofline import measured_roofline
from tuner.roofline_kernels import describe_roofline
from tuner.shown_schedules import shown_schedules
from tuner.tasks import ExtractedTask, extract_tasks
from tuner.tuning import Tuning, TuningSummary
from tuner.verify import NumericsReport
from tuner.winners import Winners

_TUNED = "tuned"
_BASELINE_BUDGET_S = 6.0
_COMPARISON_BUDGET_S = 20.0


def tune(request: TuneRequest, *, store: RecordStore, models: CostModelStore, sink: EventSink) -> TuneResult:
    """Tune, build, verify, compare and package one model.

    Raises `TesseraError` with a stable code for whatever a person can act on. ``request.work_dir`` keeps nothing but
    the finished bundle afterwards.
    """
    return _Job(request=request, store=store, models=models, sink=sink).run()


@dataclass(kw_only=True, eq=False)
class _Job:
    request: TuneRequest
    store: RecordStore
    models: CostModelStore
    sink: EventSink

    def run(self) -> TuneResult:
        request, started = self.request, time.monotonic()
        self._place = Place(request)
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
        self._limit = MemoryLimit(prepared, request.target, request.memory_limit_bytes, windows=request.windows)
        self._ways = self._limit.ways
        tasks = self._extract()
        self._builds = Builds(
            request=request,
            place=self._place,
            model=model,
            limit=self._limit,
            tasks=tasks,
            samples=self._samples,
            reference=self._reference,
            scratch=self._scratch,
            log=self._log,
        )
        untuned = self._untuned(model)
        self._begin(Stage.TUNE)
        plans, summary = self._tune(tasks)
        self._begin(Stage.BUILD, summary)
        built = [self._builds.planned(name, plan) for name, plan in plans.items()]
        self._begin(Stage.VERIFY, summary)
        checked = [self._builds.repaired(self._builds.checked(build)) for build in built]
        self._begin(Stage.BENCHMARK, summary)
        tuned = self._builds.at_fastest_llvm_level(self._builds.fastest(checked))
        plan = tuned.plan or plans[_TUNED]
        outcome, shipped, latencies = self._compare(tuned, untuned, model)
        self._begin(Stage.PACKAGE, summary)
        build = "tuned" if shipped is tuned else "untuned"
        records = plan.winners if shipped is tuned else {}
        search = {
            **summary.as_dict(),
            "tasks": len(needed_tasks(tasks, plan.ways)),
            "tasks_tuned": len(records),
            "schedules": plan.chosen_by(tasks, guessed_by=self._guessed_by) if shipped is tuned else {},
            "choices": plan.choices(),
            "llvm_opt_level": shipped.llvm_opt_level,
            "job_seconds": round(time.monotonic() - started, 1),
        }
        bundle = request.work_dir / bundle_name(request.model_name, request.target.name)
        manifest = write_bundle(
            path=bundle,
            module=self._builds.for_target(shipped),
            manifest=describe(
                request,
                model,
                outcome=outcome,
                numerics=shipped.numerics,
                checked_on=self._place.spec,
                latencies=latencies,
                shipped=build,
                search=search,
                functions=self._builds.work(shipped),
                memory=self._memory(shipped, model),
            ),
            samples=self._samples,
            reference=self._reference,
            records=[asdict(record) for record in records.values()],
            workloads=[asdict(task.tuning.workload) for task in tasks if task.tuning.key in records],
        )
        schedules = shown_schedules(
            tasks, plan, target=request.target, guessed_by=self._guessed_by, log=partial(self._log, level="warning")
        )
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._finish(outcome, shipped.numerics, latencies, build=build)
        return TuneResult(outcome=outcome, bundle=bundle, manifest=manifest, schedules=schedules)

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

    def _log(self, message: str, level: str = "info") -> None:
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
            threads=self._place.spec.threads,
        )
        return samples, list(reference)

    def _extract(self) -> list[ExtractedTask]:
        ways = self._ways
        tasks = self._limit.allowed(extract_tasks(ways, self.request.target, seed=self.request.seed))
        if self.request.measure != "device" or not ways.can_be_compared(self.request.budget):
            tasks = without_unknown_ways(tasks, self.store, self.request.target, needed=self._limit.needed_ways)
        self.sink.emit(
            TasksExtracted(
                tasks=tuple(
                    TaskSummary(
                        key=task.tuning.key,
                        name=task.tuning.name,
                        workload=task.tuning.workload.key,
                        uses=task.tuning.uses,
                        flops=task.tuning.workload.flops,
                        traffic_bytes=task.traffic_bytes,
                        tunable=task.tunable,
                    )
                    for task in tasks
                )
            )
        )
        for task in tasks:
            if task.spaces_error:
                self._log(f"{task.tuning.name} keeps the default schedule: {task.spaces_error}", level="warning")
        return tasks

    def _untuned(self, model: ImportedModel) -> Build:
        """TVM's default build, timed once so that the search's progress has something to stand against."""
        started = time.monotonic()
        untuned = self._builds.untuned()
        built = time.monotonic()
        if self.request.measure == "device":
            latencies = self._place.compare(
                {"untuned": untuned.module},
                model,
                self._samples[0],
                time_budget_s=_BASELINE_BUDGET_S,
                with_onnxruntime=True,
                afterwards=self._measure_roofline,
            )
            self.sink.emit(
                BaselineMeasured(
                    latency_us=latencies["untuned"].median_us,
                    spread_us=latencies["untuned"].spread_us,
                    onnxruntime_us=latencies["onnxruntime"].median_us if "onnxruntime" in latencies else None,
                )
            )
        # The tuned network is built, by windows too where it may be, then timed for longer than the untuned one here.
        builds = (1 if self._limit.limit_bytes or not self._ways.smallest_plans else 2) + len(LLVM_OPT_LEVELS) - 1
        self._afterwards_s = builds * (built - started) + 2 * (time.monotonic() - built)
        return untuned

    def _measure_roofline(self, networks: Mapping[str, RunnableNetwork]) -> None:
        """By the kernels in the untuned build, where and as it was timed. A job goes on without one."""
        try:
            found = measured_roofline(describe_roofline(self._place.spec), networks["untuned"].best_us)
        except Exception as error:
            self._log(f"The roofline could not be measured: {error}", level="warning")
        else:
            self.sink.emit(RooflineMeasured(peak_gflops=found.peak_gflops, bandwidth_gb_s=found.bandwidth_gb_s))

    def _tune(self, tasks: Sequence[ExtractedTask]) -> tuple[dict[str, Plan], TuningSummary]:
        """Search, then what to build."""
        spec, request = self.request.target, self.request
        tunable = [task.tuning for task in tasks if task.tunable]
        hosts = self.request.build_hosts
        with (
            BuildPool(self._place.spec, workers=self._place.builders, hosts=hosts) as builder,
            self._place.runner() as runner,
        ):
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
            self._guessed_by = tuning.loop.guessed_by
            self._search_ended = time.monotonic()
            self._log(f"search ended by {summary.ended_by}: {summary.trials} trials in {summary.seconds:.0f} s")
            if summary.drift is not None and summary.noise is not None:
                self._log(f"machine drift while searching: {summary.drift:.2f}×, noise {summary.noise:.1%}")
            finals = Winners(
                target=spec,
                store=self.store,
                builder=builder,
                runner=runner,
                sink=self.sink,
                scratch=self._scratch,
                seed=request.seed,
                measure=request.measure == "device",
                drift=summary.drift,
            )
            return self._plans(tasks, tuning, finals), summary

    def _plans(self, tasks: Sequence[ExtractedTask], tuning: Tuning, finals: Winners) -> dict[str, Plan]:
        """What to build: by the fastest ways that keep the limit, and by windows wherever they come near."""
        possible, totals, self._front = self._limit.choose(tasks, tuning.loop.best_us)
        compared_us = measured_completely(totals)
        tunable = [task.tuning for task in tasks if task.tunable]
        known: dict[str, Record] = {}
        defaults: dict[str, list[str]] = {}

        def planned(ways: Mapping[str, str]) -> Plan:
            winners = finals.choose(tunable, ways, known=known)
            known.update(winners)
            # Of tasks that these ways do without too: they are needed where a wrong network is built in the usual way.
            for task in tunable:
                if task.key not in winners and task.key not in defaults:
                    defaults[task.key] = tuning.default_traces(task)
            own = {key: traces for key, traces in defaults.items() if key not in winners}
            return Plan(ways=ways, compared_us=compared_us, winners=winners, defaults=own)

        for ways in possible:
            plan = planned(ways)
            if self._limit.limit_bytes is None or self._limit.keeps(self._builds.scheduled(plan).memory):
                break
        else:
            self._log("These schedules break the memory limit: taking those that allocate least.", level="warning")
            plan = plan.in_order(self._least_memory_first(tasks, plan, tuning))
        for choice, latencies in compared_us.items():
            each = ", ".join(f"{way} {latency_us:.0f} µs" for way, latency_us in latencies.items())
            self._log(f"{choice}: {each}; chosen: {plan.ways[choice]}")
        by_windows = self._ways.with_windows(plan.ways, compared_us)
        if self.request.memory_limit_bytes or self.request.measure != "device" or by_windows == plan.ways:
            return {_TUNED: plan}
        return {_TUNED: plan, "windows": planned(by_windows)}

    def _least_memory_first(self, tasks: Sequence[ExtractedTask], plan: Plan, tuning: Tuning) -> dict[str, list[str]]:
        """What is known of every task of a plan, by what it allocates."""
        needed = [task.tuning for task in needed_tasks(tasks, plan.ways) if task.tunable]
        known = {key: [record.trace] for key, record in plan.winners.items()}
        return {
            task.key: least_memory_first(
                task.workload.module_json,
                known.get(task.key, []) + tuning.default_traces(task),
                spec=self.request.target,
            )
            for task in needed
        }

    def _memory(self, shipped: CheckedBuild, model: ImportedModel) -> dict[str, object]:
        """What the manifest keeps of the memory of a run: planned, measured, and what else was possible. Raises where
        the limit is broken after all."""
        planned = shipped.scheduled.memory if shipped.scheduled else None
        measured = self._place.peak_bytes(shipped.module, model, self._samples[0])
        self._limit.require(planned.peak_bytes if planned else measured)
        return {
            "limit_bytes": self._limit.limit_bytes,
            **(planned.as_dict() if planned else {}),
            "measured_peak_bytes": measured,
            "usual_timeline": timeline_as_dicts(self._limit.needs.timeline({})),
            "windows": self._ways.windows(shipped.plan.ways) if shipped.plan else [],
            "front": [point.as_dict() for point in self._front],
        }

    def _compare(
        self, tuned: CheckedBuild, untuned: Build, model: ImportedModel
    ) -> tuple[str, CheckedBuild, dict[str, Latency]]:
        """Which build is shipped: never one that is wrong, never a tuned one that is not faster than the untuned.

        The untuned build is checked only when it is to be shipped: its naive loops can take minutes.
        """
        measured = self.request.measure == "device"
        latencies: dict[str, Latency] = {}
        outcome = "no_improvement" if measured else "unmeasured"
        if measured:
            modules = {"untuned": untuned.module} | ({"tuned": tuned.module} if tuned.numerics.passed else {})
            latencies = self._place.compare(
                modules, model, self._samples[0], time_budget_s=_COMPARISON_BUDGET_S, with_onnxruntime=True
            )
            if tuned.numerics.passed:
                outcome = choose(untuned=latencies["untuned"], tuned=latencies["tuned"])
                if outcome == "no_improvement" and self._breaks_limit(untuned.module, model):
                    outcome = "improved"  # in memory, which is what was asked for
        if tuned.numerics.passed and outcome != "no_improvement":
            return outcome, tuned, latencies
        plain = self._builds.checked(untuned)
        if plain.numerics.passed:
            return outcome, plain, latencies
        tuned.numerics.require()
        return outcome, tuned, latencies

    def _breaks_limit(self, module: Path, model: ImportedModel) -> bool:
        limit = self._limit.limit_bytes
        return limit is not None and (self._place.peak_bytes(module, model, self._samples[0]) or 0) > limit

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
