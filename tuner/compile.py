"""Building whole networks: TVM's own default build, and ours with schedules applied and weights prepacked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.target import Target

from schedules.gpu.threads import bind_the_rest, one_after_another
from schedules.graph.pipeline import finish, prepack
from schedules.memory.lift import lift_workspaces
from schedules.memory.workspace import workspace_bytes
from schedules.space import ReplayError, initialized_postprocs, replay
from tuner.cuda import use_nvrtc
from tuner.errors import BuildError
from tuner.link import export_module
from tuner.memory import MemoryPlan, plan_memory
from tuner.roofline_kernels import with_roofline
from tuner.targets import TargetSpec
from tuner.tasks import task_module

# LLVM's levels that a network is built at, TVM's default first: which of them is faster depends on the network.
LLVM_OPT_LEVELS = (3, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scheduled:
    """A network ready to be built, the functions left unscheduled, and the memory of a run, where shapes are known."""

    module: tvm.IRModule
    for_gpu: bool
    unscheduled: tuple[str, ...]
    memory: MemoryPlan | None


def build_untuned(module: tvm.IRModule, output: Path, *, spec: TargetSpec) -> None:
    """TVM's own default build of an imported network, as anyone gets it from ``tvm.compile``."""
    pipeline = relax.get_default_pipeline(Target(spec.tvm)) if spec.is_gpu else "default"
    _build(module, output, spec=spec, relax_pipeline=pipeline)


def schedule_network(fused: tvm.IRModule, traces: Mapping[str, Sequence[str]], *, spec: TargetSpec) -> Scheduled:
    """A fused network with a schedule for each named function.

    ``traces`` gives each function its traces, best first: the first one that replays is used. Constant weights are
    reordered for their schedules here, so that the module is self-contained and keeps the model's signature.
    """
    target = Target(spec.tvm)
    mod = tvm.IRModule(dict(fused.functions.items()), attrs=fused.attrs)
    unscheduled = []
    for variable, function in fused.functions.items():
        if variable.name_hint not in traces:
            continue
        scheduled = _schedule(function, traces[variable.name_hint], target)
        if scheduled is None:
            unscheduled.append(variable.name_hint)
        else:
            mod.update_func(variable, scheduled)
    packed = lift_workspaces(prepack(mod, target))
    memory = plan_memory(packed, threads=None if spec.is_gpu else spec.threads)
    return Scheduled(module=packed, for_gpu=spec.is_gpu, unscheduled=tuple(unscheduled), memory=memory)


def least_memory_first(module_json: str, traces: Sequence[str], *, spec: TargetSpec) -> list[str]:
    """The traces of a task, those first with which its function allocates least for itself."""
    target, function = Target(spec.tvm), tvm.ir.load_json(module_json)["main"]

    def allocated_bytes(trace: str) -> float:
        scheduled = _schedule(function, [trace], target)
        if scheduled is None:
            return math.inf
        return workspace_bytes(tvm.IRModule({"main": scheduled}), threads=spec.threads)

    return sorted(traces, key=allocated_bytes)


def build_scheduled(
    scheduled: Scheduled, output: Path, *, spec: TargetSpec, llvm_opt_level: int = LLVM_OPT_LEVELS[0]
) -> None:
    """Build a scheduled network. One for a GPU can be built for a CPU too: its threads take turns there."""
    target = Target(spec.tvm)
    if scheduled.for_gpu and spec.is_gpu:
        module = bind_the_rest(finish(scheduled.module, target))
    elif scheduled.for_gpu:
        module = finish(one_after_another(scheduled.module), target)
    else:
        module = finish(scheduled.module, target)
    _build(module, output, spec=spec, relax_pipeline=None, llvm_opt_level=llvm_opt_level)


def _schedule(function: tvm.tirx.PrimFunc, traces: Sequence[str], target: Target) -> tvm.tirx.PrimFunc | None:
    alone = task_module(function)
    processors = initialized_postprocs(alone, target)
    for trace in traces:
        try:
            scheduled = replay(alone, trace, processors).mod["main"]
        except ReplayError:
            continue
        scheduled = scheduled.with_attr("tirx.is_scheduled", True)
        name = (function.attrs or {}).get("global_symbol")
        return scheduled.with_attr("global_symbol", name) if name else scheduled.without_attr("global_symbol")
    return None


def _build(
    module: tvm.IRModule,
    output: Path,
    *,
    spec: TargetSpec,
    relax_pipeline: Any,
    llvm_opt_level: int = LLVM_OPT_LEVELS[0],
) -> None:
    if spec.is_gpu:
        use_nvrtc()
    target = Target(spec.tvm if spec.is_gpu else {**spec.tvm, "opt-level": llvm_opt_level})
    try:
        executable = tvm.compile(with_roofline(module, spec), target=target, relax_pipeline=relax_pipeline)
    except BuildError:
        raise
    except Exception as error:  # TVM raises its own errors, none of which a caller could tell apart
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise BuildError(f"The network could not be compiled: {reason}") from error
    export_module(executable, output, triple=spec.triple)
