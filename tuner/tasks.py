"""Tasks of a fused network: its distinct PrimFuncs, weighted by how often they are called, with their design spaces.

A network may come in several forms, of which it will be built in one or in a mixture (`tuner.ways`): what they share is
one task.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.analysis import has_reshape_pattern
from tvm.s_tir.analysis import estimate_tir_flops
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.target import Target
from tvm_ffi import structural_hash

from schedules.graph.layout_free import layout_free_parameters
from schedules.graph.windows import LABEL
from schedules.space import design_spaces
from schedules.winograd import transform_flops
from tuner.records import Workload
from tuner.search.alternatives import most_calls
from tuner.targets import TargetSpec, tvm_version
from tuner.tuning import TuningTask
from tuner.ways import Ways


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtractedTask:
    """A distinct function of the network; ``spaces_error`` says why it has no design space (symbolic shapes, mostly),
    else it is empty. ``traffic_bytes`` are those of its arguments, None where shapes are not known."""

    tuning: TuningTask
    spaces_error: str = ""
    traffic_bytes: int | None = None

    @property
    def tunable(self) -> bool:
        return bool(self.tuning.spaces)


def task_module(function: tirx.PrimFunc) -> tvm.IRModule:
    """A function as a task: alone in its module, under the name ``main``."""
    return tvm.IRModule({"main": function.without_attr(LABEL).with_attr("global_symbol", "main")})


def workload_key(mod: tvm.IRModule) -> str:
    """Identity of a task across models: SHA-256 over TVM's version and the structural hash.

    Structural hashes are not promised to be stable across TVM versions, so the version is part of the key.
    """
    digest = f"{tvm_version()}:{structural_hash(mod, map_free_vars=True) & (2**64 - 1):x}"
    return hashlib.sha256(digest.encode()).hexdigest()


def task_functions(mod: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    """The functions of a fused module that are tasks, by global name."""
    calls = call_counts(mod)
    return {
        variable.name_hint: function
        for variable, function in mod.functions.items()
        # A reshape becomes a view of its input later, unless a schedule hides that it is one.
        if isinstance(function, tirx.PrimFunc) and calls[variable.name_hint] and not has_reshape_pattern(function)
    }


def extract_tasks(ways: Ways, spec: TargetSpec, *, seed: int) -> list[ExtractedTask]:
    """The tasks of a network's fused forms, the one with most work (calls × FLOPs) first.

    Functions that are structurally equal are one task; its key is the first one's name. The network's constant weights
    are those of the usual form; a task that it lacks comes with its own beside them.
    """
    found: dict[str, tuple[str, tvm.IRModule]] = {}
    names: Counter[str] = Counter()

    def counted(fused: tvm.IRModule) -> Counter[str]:
        called, counts = call_counts(fused), Counter[str]()
        for name, function in task_functions(fused).items():
            alone = task_module(function)
            key = workload_key(alone)
            counts[key] += called[name]
            if key not in found:
                names[name] += 1
                found[key] = (name if names[name] == 1 else f"{name}_{names[name]}", alone)
        return counts

    calls = counted(ways.direct)
    around = {
        choice: {way: counted(ways.around(choice, way)) for way in every} for choice, every in ways.choices.items()
    }
    uses = ways.uses(calls, around)
    # Not those from the edges of neighbourhoods.
    found = {key: named for key, named in found.items() if key in uses}
    own_bytes = {key: weight_bytes(alone["main"]) for key, (_, alone) in found.items()}
    usual_bytes = sum(count * own_bytes[key] for key, count in calls.items())
    target = Target(spec.tvm)
    tasks = []
    for key, (name, alone) in found.items():
        error, spaces = "", []
        try:
            spaces = design_spaces(alone, target, cores=spec.threads, vector_bits=spec.vector_bits, seed=seed)
        except Exception as failure:  # whatever the rules cannot schedule keeps its default schedule
            error = str(failure).strip().splitlines()[-1] if str(failure).strip() else type(failure).__name__
        workload = Workload(
            key=key, tvm_version=tvm_version(), name=name, module_json=tvm.ir.save_json(alone), flops=_work(alone)
        )
        own = tuple(uses.get(key, []))
        beside = 0 if key in calls else most_calls(own) * own_bytes[key]
        tuning = TuningTask(
            key=name, name=name, workload=workload, uses=own, spaces=spaces, network_weight_bytes=usual_bytes + beside
        )
        tasks.append(ExtractedTask(tuning=tuning, spaces_error=error, traffic_bytes=argument_bytes(alone) or None))
    return sorted(tasks, key=lambda task: -most_calls(task.tuning.uses) * task.tuning.workload.flops)


def weight_bytes(function: tirx.PrimFunc) -> int:
    """Bytes of a function's parameters that are constant weights."""
    buffers = [function.params[index].ty for index in layout_free_parameters(function)]
    return sum(int(_elements(buffer)) * np.dtype(str(buffer.dtype)).itemsize for buffer in buffers)


def argument_bytes(mod: tvm.IRModule) -> int:
    """The bytes of all tensors that ``main`` is given, those that it writes among them; 0 where shapes are not
    known."""
    try:
        arguments = ArgInfo.from_entry_func(mod, False)
        return sum(math.prod(map(int, each.shape)) * np.dtype(str(each.dtype)).itemsize for each in arguments)
    except (TypeError, ValueError, tvm.error.InternalError):
        return 0


def _work(mod: tvm.IRModule) -> float:
    """Arithmetic operations of a task; where there is next to no arithmetic (copies, transposes), one for every fourth
    byte touched, so that it still has a size."""
    parameters = [parameter.ty for parameter in mod["main"].params if hasattr(parameter.ty, "shape")]
    elements = sum(_elements(parameter) for parameter in parameters)
    transform = transform_flops(mod)
    if transform is not None:
        return max(transform, elements)
    try:
        return max(float(estimate_tir_flops(mod)), elements)
    except Exception:  # operators without a known cost
        return elements


def _elements(buffer: tirx.BufferType) -> float:
    product = 1.0
    for extent in buffer.shape:
        product *= int(extent) if isinstance(extent, tirx.IntImm) else 1
    return product


def call_counts(mod: tvm.IRModule) -> Counter[str]:
    """How often each global function is called by the Relax functions (`call_tir` and the like)."""
    counts: Counter[str] = Counter()

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, tvm.ir.Call):
            counts.update(arg.name_hint for arg in expression.args if isinstance(arg, tvm.ir.GlobalVar))

    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return counts
