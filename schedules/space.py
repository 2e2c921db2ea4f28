"""Design spaces of a task: TVM's PostOrderApply over our rule set, read into `DecisionSpace`s, and replayed.

`design_spaces` applies the rules of `schedules.rules` once per task; every resulting sketch becomes a
`DecisionSpace`. `replay` turns a trace back into a scheduled module: what a build worker does for each candidate.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace
from tvm.target import Target

from schedules.blocks import block_names
from schedules.decisions import Access, Anchor, DecisionSpace, Gene, GeneKind, RowStage, factorizations, locations
from schedules.gpu.rules import gpu_postprocs, gpu_rules, is_pipelined
from schedules.gpu.threads import is_gpu
from schedules.graph.layout_free import layout_free_parameters
from schedules.intrinsics import register_intrinsics
from schedules.rules import postprocs, tiling_rules
from schedules.templates import template_for
from schedules.windows.template import is_chain

_REDUCTION = 2  # TVM's IterVar kind of a reduction


class ReplayError(Exception):
    """The trace does not apply to the module, or a postprocessor refuses the result."""


def design_spaces(mod: tvm.IRModule, target: Target, *, cores: int, vector_bits: int, seed: int) -> list[DecisionSpace]:
    """Every sketch of ``mod``'s function ``main``; empty where the rules find nothing to decide. A function with a
    template has that one.

    Raises whatever TVM raises on functions that it cannot schedule (symbolic shapes among them).
    """
    template = None if is_gpu(target) else template_for(mod)
    if template is not None:
        sch = Schedule(mod, seed=seed + 1, debug_mask="none", error_render_level="none")
        # What looks like a template's function may still not be one: then the rules have a try.
        with contextlib.suppress(tvm.s_tir.ScheduleError):
            template(sch)
            return [_read_space("template", sch.trace, mod)]
    register_intrinsics(target)
    context = ms.TuneContext(
        mod=mod,
        target=target,
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=gpu_rules() if is_gpu(target) else tiling_rules(cores=cores, vector_bits=vector_bits),
            postprocs=_postprocs(mod, target),
            mutator_probs={},
        ),
        search_strategy=ms.search_strategy.ReplayTrace(),
        rand_state=seed + 1,
        num_threads=1,
    ).clone()
    sketches = [sketch.trace for sketch in context.generate_design_space()]
    if is_gpu(target):
        sketches = [trace for trace in sketches if not is_pipelined(trace)]
    return [_read_space(f"tile-{index}", trace, mod) for index, trace in enumerate(sketches)]


def replay(mod: tvm.IRModule, trace_json: str, processors: list[Any]) -> Schedule:
    """Apply a trace and the postprocessors to ``mod``; raises `ReplayError` where the result is not legal.

    TVM crashes on traces whose decisions name instructions that are not there: replay what comes from outside in a
    child process first (build workers are).
    """
    sch = Schedule(mod, seed=1, debug_mask="none", error_render_level="none")
    try:
        Trace.apply_json_to_schedule(json.loads(trace_json), sch)
    except Exception as error:
        raise ReplayError(f"the trace does not apply: {str(error).strip()[-300:]}") from error
    sch.enter_postproc()
    for processor in processors:
        if not processor.apply(sch):
            raise ReplayError(f"{type(processor).__name__} refuses the schedule")
    return sch


def sampled_decisions(trace: Trace, instructions: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The decisions that a replayed schedule really took at these instructions: TVM repairs invalid ones silently."""
    rows = (plain(trace.decisions[trace.insts[index]]) for index in instructions)
    return tuple(tuple(row) if isinstance(row, list) else (row,) for row in rows)


def initialized_postprocs(mod: tvm.IRModule, target: Target) -> list[Any]:
    """The postprocessors of the rule set, bound to a task, as `replay` needs them."""
    register_intrinsics(target)
    context = ms.TuneContext(
        mod=mod,
        target=target,
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=[], postprocs=_postprocs(mod, target), mutator_probs={}
        ),
        search_strategy=ms.search_strategy.ReplayTrace(),
        rand_state=1,
        num_threads=1,
    ).clone()
    return list(context.space_generator.postprocs)


def _postprocs(mod: tvm.IRModule, target: Target) -> list[Any]:
    """A chain reads its weights in the order in which they come: what would reorder them would do it for every row."""
    return list(gpu_postprocs() if is_gpu(target) else postprocs(moves_weights=not is_chain(mod)))


def _read_space(variant: str, trace: Trace, mod: tvm.IRModule) -> DecisionSpace:
    instructions, decisions = plain(trace.simplified(True).as_json(True))
    values = dict(decisions)
    block_names: dict[str, str] = {}
    loop_owner: dict[str, tuple[str, int]] = {}
    genes: list[Gene] = []
    for index, (kind, inputs, attributes, outputs) in enumerate(instructions):
        if kind == "GetSBlock":
            block_names[outputs[0]] = attributes[0]
        elif kind == "GetLoops":
            loop_owner.update({loop: (block_names.get(inputs[0], ""), axis) for axis, loop in enumerate(outputs)})
        elif kind == "SamplePerfectTile":
            block, axis = loop_owner.get(inputs[0], ("", -1))
            table = factorizations(int(np.prod(values[index])), int(attributes[0]), int(attributes[1]))
            genes.append(Gene(kind=GeneKind.TILE, instruction=index, block=block, axis=axis, table=table, values=table))
        elif kind == "SampleCategorical":
            candidates = np.array(attributes[0], dtype=np.int64)
            positions = np.arange(len(candidates))[:, None]
            genes.append(
                Gene(
                    kind=GeneKind.CATEGORICAL, instruction=index, block="", axis=-1, table=positions, values=candidates
                )
            )
        elif kind == "SampleComputeLocation":
            block = block_names.get(inputs[0], "")
            table = locations()
            genes.append(
                Gene(
                    kind=GeneKind.LOCATION,
                    instruction=index,
                    block=block,
                    axis=-1,
                    table=table,
                    values=table[:, 0],
                    reduces=_is_reduction(mod, block),
                )
            )
        elif index in values:
            raise ReplayError(f"sampling instruction {kind} has no gene")
    if is_chain(mod):
        stages = _read_stages(mod, genes)
        return DecisionSpace(variant=variant, instructions=instructions, genes=tuple(genes), anchor=None, stages=stages)
    tiled = [gene.block for gene in genes if gene.kind is GeneKind.TILE]
    anchor = read_anchor(mod, max(set(tiled), key=tiled.count)) if tiled else None
    return DecisionSpace(variant=variant, instructions=instructions, genes=tuple(genes), anchor=anchor)


def _read_stages(mod: tvm.IRModule, genes: list[Gene]) -> tuple[RowStage, ...]:
    """The stages of a chain, from its blocks ``rows_i`` and ``sum_i``, and its genes."""
    sch = Schedule(mod, debug_mask="none", error_render_level="none")
    positions = {(gene.block, gene.axis): position for position, gene in enumerate(genes)}
    names = block_names(mod)
    stages = []
    for index in range(sum(name.startswith("write") for name in names)):
        sums, block = f"sum{index}", f"write{index}"
        iterators = sch.get(sch.get_sblock(sums if sums in names else block)).iter_vars
        extents = [int(iterator.dom.extent) for iterator in iterators]
        rows = int(sch.get(sch.get_sblock(f"rows{index}")).iter_vars[0].dom.extent)
        stages.append(
            RowStage(
                pixels=positions[block, 0],
                channels=positions[block, 1],
                work=2.0 * rows * float(np.prod(extents)),
                mixes_channels=len(extents) == 5,
            )
        )
    return tuple(stages)


def read_anchor(mod: tvm.IRModule, block_name: str) -> Anchor | None:
    """Iterators and buffer accesses of the named block of ``main``, None where the block is not in ``mod`` as is."""
    sch = Schedule(mod, debug_mask="none", error_render_level="none")
    try:
        block = sch.get(sch.get_sblock(block_name))
    except Exception:  # the sketch created this block (a cache stage): there is no access to read yet
        return None
    variables = [iterator.var for iterator in block.iter_vars]
    layout_free = _layout_free_buffers(mod)
    accesses = [
        Access(
            strides=np.array(
                [[_stride(item.min, variable) for variable in variables] for item in region.region]
            ).reshape(len(region.region), len(variables)),
            item_bytes=max(1, tvm_ffi.dtype(str(region.source.ty.dtype)).bits // 8),
            is_write=is_write,
            layout_free=region.source.name in layout_free,
        )
        for is_write, regions in ((False, block.reads), (True, block.writes))
        for region in regions
    ]
    return Anchor(
        block=block_name,
        axes=tuple(variable.name for variable in variables),
        extents=tuple(int(iterator.dom.extent) for iterator in block.iter_vars),
        reduction=tuple(int(iterator.iter_type) == _REDUCTION for iterator in block.iter_vars),
        accesses=tuple(accesses),
    )


def _is_reduction(mod: tvm.IRModule, block_name: str) -> bool:
    """Whether the named block reduces; one that the sketch itself created (a partial sum) does."""
    anchor = read_anchor(mod, block_name)
    return anchor is None or any(anchor.reduction)


def _layout_free_buffers(mod: tvm.IRModule) -> set[str]:
    function = mod["main"]
    return {function.params[index].name for index in layout_free_parameters(function)}


def _stride(expression: Any, variable: Any) -> int:
    return abs(_evaluate(expression, variable) - _evaluate(expression, None))


def _evaluate(expression: Any, one: Any) -> int:
    """The value of an affine index with ``one`` set to 1 and every other variable to 0; what is not affine is 0."""
    match type(expression).__name__:
        case "IntImm":
            return int(expression.value)
        case "Var":
            return int(one is not None and expression.same_as(one))
        case "Add":
            return _evaluate(expression.a, one) + _evaluate(expression.b, one)
        case "Sub":
            return _evaluate(expression.a, one) - _evaluate(expression.b, one)
        case "Mul":
            return _evaluate(expression.a, one) * _evaluate(expression.b, one)
        case "Cast":
            return _evaluate(expression.value, one)
    return 0


def plain(value: Any) -> Any:
    """TVM's containers and immediates as plain Python, JSON-ready."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, tvm.tirx.IntImm):
        return int(value.value)
    if isinstance(value, tvm.tirx.FloatImm):
        return float(value.value)
    if isinstance(value, dict | tvm_ffi.Map):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value]
