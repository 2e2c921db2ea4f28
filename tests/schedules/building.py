"""Random schedules from the design space, and building and running what comes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.target import Target
from tvm.tirx import PrimFunc

from schedules.graph.pipeline import finish, fuse, prepack, prepare
from schedules.intrinsics import register_intrinsics
from schedules.rules import postprocs, tiling_rules
from schedules.templates import template_for

Array = npt.NDArray[Any]

# No CPU named: what is built here runs on every machine of the host's architecture.
TARGET = Target({"kind": "llvm", "num-cores": 2})
CORES, VECTOR_BITS = 2, 256


def task_context(function: PrimFunc, *, rules: list[Any] | None = None, seed: int = 1) -> ms.TuneContext:
    register_intrinsics(TARGET)
    return ms.TuneContext(
        mod=IRModule({"main": function.with_attr("global_symbol", "main")}),
        target=TARGET,
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=tiling_rules(cores=CORES, vector_bits=VECTOR_BITS) if rules is None else rules,
            postprocs=postprocs(),
            mutator_probs={},
        ),
        search_strategy=ms.search_strategy.ReplayTrace(),
        rand_state=seed,
        num_threads=1,
    ).clone()


def sketches(function: PrimFunc, *, rules: list[Any] | None = None, seed: int = 1) -> list[Schedule]:
    """The design spaces of a function, one sample of each."""
    return list(task_context(function, rules=rules, seed=seed).generate_design_space())


def finished(function: PrimFunc, *, seed: int = 1) -> list[IRModule]:
    """A function scheduled once per design space, those that the postprocessors accept."""
    context = task_context(function, seed=seed)
    modules = []
    template = template_for(context.mod)
    if template is None:
        made = list(context.generate_design_space())
    else:
        made = [Schedule(context.mod, seed=seed)]
        template(made[0])
    for sketch in made:
        sketch.enter_postproc()
        if all(processor.apply(sketch) for processor in context.space_generator.postprocs):
            modules.append(sketch.mod)
    return modules


def scheduled(mod: IRModule, *, seed: int) -> IRModule:
    """Every PrimFunc of a fused module replaced by a random schedule of it."""
    result = mod.clone()
    for variable, function in mod.functions.items():
        if isinstance(function, PrimFunc):
            candidates = finished(function.without_attr("global_symbol"), seed=seed)
            body = candidates[seed % len(candidates)]["main"] if candidates else function
            result.update_func(variable, body.without_attr("global_symbol").with_attr("tirx.is_scheduled", True))
    return result


def fused(prepared: IRModule) -> IRModule:
    return fuse(prepared, TARGET, vector_bits=VECTOR_BITS)


def built(functions: IRModule) -> Any:
    """A fused module, scheduled or not, as an executable of the virtual machine."""
    return tvm.compile(finish(prepack(functions, TARGET), TARGET), target=TARGET, relax_pipeline=None)


def tuned_build(mod: IRModule, *, seed: int | None) -> Any:
    """An imported module through the whole pipeline; without a seed the PrimFuncs stay unscheduled."""
    functions = fused(prepare(mod))
    if seed is not None:
        functions = scheduled(functions, seed=seed)
    return built(functions)


def untuned_build(mod: IRModule) -> Any:
    return tvm.compile(mod, target=TARGET)


def run(executable: Any, values: Array) -> list[Array]:
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(values))
    outputs = result if not isinstance(result, tvm.runtime.Tensor) else [result]
    return [output.numpy() for output in outputs]


def relative_error(actual: Array, expected: Array) -> float:
    return float(np.abs(actual - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def run_function(module: IRModule, *arrays: Array) -> None:
    """Build a module's ``main`` and call it; the outputs are written into the last arrays."""
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    tvm.compile(module, target=TARGET)["main"](*tensors)
    for array, tensor in zip(arrays, tensors, strict=True):
        array[...] = tensor.numpy()


def as_module(function: PrimFunc) -> IRModule:
    return IRModule({"main": function.with_attr("global_symbol", "main")})
