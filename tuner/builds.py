"""Builds of one network: by a plan, or as TVM does by default; whether each is right, and which is the fastest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from schedules.winograd import WINOGRAD
from tuner.compile import LLVM_OPT_LEVELS, Scheduled, build_scheduled, build_untuned, schedule_network
from tuner.errors import WorkerError
from tuner.frontend.convert import ImportedModel
from tuner.limit import MemoryLimit
from tuner.measure.fleet import NoBoardError
from tuner.measure.tracker import TrackerError
from tuner.network_process import Sample
from tuner.place import Place
from tuner.plan import Plan
from tuner.request import TuneRequest
from tuner.search.alternatives import USUAL_WAY
from tuner.tasks import ExtractedTask
from tuner.verify import NumericsReport

_COMPARISON_BUDGET_S = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Build:
    """``plan`` and ``scheduled`` are what the library was built from: the untuned build has none."""

    module: Path
    plan: Plan | None = None
    scheduled: Scheduled | None = None
    llvm_opt_level: int = LLVM_OPT_LEVELS[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedBuild(Build):
    numerics: NumericsReport


@dataclass(frozen=True, kw_only=True, eq=False)
class Builds:
    """``samples`` and ``reference`` are the inputs that a build is checked on and ONNX Runtime's outputs for them;
    ``scratch`` is where the libraries are; ``log`` takes a message and its level."""

    request: TuneRequest
    place: Place
    model: ImportedModel
    limit: MemoryLimit
    tasks: Sequence[ExtractedTask]
    samples: Sequence[Sample]
    reference: Sequence[Sample]
    scratch: Path
    log: Callable[[str, str], None]

    def untuned(self) -> Build:
        """TVM's default build."""
        module = self.scratch / "untuned.so"
        build_untuned(self.model.module, module, spec=self.place.spec)
        return Build(module=module)

    def scheduled(self, plan: Plan) -> Scheduled:
        """The network with the winners' schedules, and default schedules for every other task."""
        fused = self.limit.ways.fused(plan.ways)
        return schedule_network(fused, plan.traces(fused, self.tasks), spec=self.request.target)

    def planned(self, name: str, plan: Plan) -> Build:
        """Raises before anything is built where the memory limit is broken after all."""
        module, scheduled = self.scratch / f"{name}.so", self.scheduled(plan)
        if scheduled.memory is not None:
            self.limit.require(scheduled.memory.peak_bytes)
        build_scheduled(scheduled, module, spec=self.place.spec)
        if scheduled.unscheduled:
            self.log(f"without a schedule: {', '.join(scheduled.unscheduled)}", "warning")
        return Build(module=module, plan=plan, scheduled=scheduled)

    def checked(self, build: Build) -> CheckedBuild:
        """A build against ONNX Runtime's outputs on every sample. One that crashes is wrong, no more."""
        try:
            numerics = self.place.verify(build.module, self.model, self.samples, self.reference)
        except (NoBoardError, TrackerError):
            raise
        except WorkerError as error:
            self.log(f"{build.module.stem} cannot be run: {error.message}", "warning")
            numerics = NumericsReport(samples=0, outputs=())
        return CheckedBuild(**{each.name: getattr(build, each.name) for each in fields(Build)}, numerics=numerics)

    def repaired(self, build: CheckedBuild) -> CheckedBuild:
        """The build itself where it is right; else one without what may be wrong, as far as that helps."""
        name, plan = build.module.stem, build.plan
        if build.numerics.passed or plan is None:
            return build
        if any(map(self._may_be_dropped, plan.ways.values())):
            self.log("The build with Winograd or windows is wrong; trying without them.", "warning")
            plan = plan.usual(self.tasks, instead_of=self._may_be_dropped)
            build = self.checked(self.planned(f"{name}-usual", plan))
        if not build.numerics.passed:
            # Winners were each checked alone, default schedules were not: leave those out.
            self.log("The build with default schedules is wrong; trying without them.", "warning")
            build = self.checked(self.planned(f"{name}-winners", plan.without_defaults()))
        return build

    def fastest(self, builds: Sequence[CheckedBuild]) -> CheckedBuild:
        """The fastest build that is right, timed in turns: what the sum of its tasks says of one is not enough, since
        tensors that stay in the cache make their readers faster too."""
        right = [build for build in builds if build.numerics.passed]
        if len(right) < 2:
            return (right or list(builds))[0]
        modules = {build.module.stem: build.module for build in right}
        latencies = self.place.compare(modules, self.model, self.samples[0], time_budget_s=_COMPARISON_BUDGET_S)
        medians_us = {name: latency.median_us for name, latency in latencies.items()}
        each = ", ".join(f"{name} {median_us:.0f} µs" for name, median_us in medians_us.items())
        self.log(f"built: {each}", "info")
        return min(right, key=lambda build: medians_us[build.module.stem])

    def at_fastest_llvm_level(self, build: CheckedBuild) -> CheckedBuild:
        """The same network built at each of LLVM's levels where that can be measured, the fastest of those that are
        right: the most aggressive level spills registers of some schedules."""
        if self.request.measure != "device" or not build.numerics.passed or build.scheduled is None:
            return build
        others = []
        for level in LLVM_OPT_LEVELS[1:]:
            module = build.module.with_name(f"{build.module.stem}-O{level}.so")
            build_scheduled(build.scheduled, module, spec=self.place.spec, llvm_opt_level=level)
            others.append(self.checked(replace(build, module=module, llvm_opt_level=level)))
        return self.fastest([build, *others])

    def for_target(self, build: Build) -> Path:
        """The library that is shipped: what was checked, or the same built for the target that cannot be run here."""
        spec = self.request.target
        if self.place.runs_the_target and spec.module == "module.so":
            return build.module
        module = self.scratch / spec.module
        if build.scheduled is None:
            build_untuned(self.model.module, module, spec=spec)
        else:
            build_scheduled(build.scheduled, module, spec=spec, llvm_opt_level=build.llvm_opt_level)
        return module

    def work(self, build: Build) -> dict[str, dict[str, float]]:
        """The work of every function of a build; nothing is known of those of the untuned one."""
        if build.plan is None or build.scheduled is None:
            return {}
        return build.plan.work(self.limit.ways.fused(build.plan.ways), build.scheduled.module, self.tasks)

    def _may_be_dropped(self, way: str) -> bool:
        """Whether the usual way may take the place of this one: not where a limit needs windows."""
        return way == WINOGRAD or (way != USUAL_WAY and self.request.memory_limit_bytes is None)
