"""Building whole networks: TVM's own default build, and ours with schedules applied and weights prepacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm.target import Target

from schedules.graph.pipeline import finish, prepack
from schedules.space import ReplayError, initialized_postprocs, replay
from tuner.errors import BuildError
from tuner.link import export_module
from tuner.targets import TargetSpec
from tuner.tasks import task_module


def build_untuned(module: tvm.IRModule, output: Path, *, spec: TargetSpec) -> None:
    """TVM's own default build of an imported network, as anyone gets it from ``tvm.compile``."""
    _build(module, output, spec=spec, relax_pipeline="default")


def build_scheduled(
    fused: tvm.IRModule, traces: Mapping[str, Sequence[str]], output: Path, *, spec: TargetSpec
) -> list[str]:
    """Build a fused network with a schedule for each named function; returns the functions left unscheduled.

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
    _build(finish(prepack(mod, target), target), output, spec=spec, relax_pipeline=None)
    return unscheduled


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


def _build(module: tvm.IRModule, output: Path, *, spec: TargetSpec, relax_pipeline: Any) -> None:
    try:
        executable = tvm.compile(module, target=Target(spec.tvm), relax_pipeline=relax_pipeline)
    except Exception as error:  # TVM raises its own errors, none of which a caller could tell apart
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise BuildError(f"The network could not be compiled: {reason}") from error
    export_module(executable, output, triple=spec.triple)
