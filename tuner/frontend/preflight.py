"""What is known of a model before any search: whether it can be imported, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx

from tuner.frontend.cost import count_flops, count_weight_bytes, peak_activation_bytes
from tuner.frontend.faults import told_as_model_error
from tuner.frontend.fold import fold_constants
from tuner.frontend.gate import require_footprint
from tuner.frontend.load import default_opset, load_model
from tuner.frontend.operators import count_operators, refuse_unsupported
from tuner.frontend.opset import convert_opset
from tuner.frontend.repair import repair_operators
from tuner.frontend.shapes import bind_input_shapes
from tuner.frontend.tensors import TensorSpec
from tuner.frontend.walk import all_nodes
from tuner.targets import TargetSpec

# A trial costs 0.06 s (matmul) to 0.13 s (3x3 convolution) of drafting, building and timing on two idle cores, as
# measured by benchmarks/search.py; the upper end, since real machines are shared. Its runs come on top: four rounds of
# two short ones, at a modest rate for schedules that are still being searched.
_SECONDS_PER_TRIAL = 0.13
_RUNS_PER_TRIAL = 8
_YOUNG_FLOPS_PER_S = 50e9
# What schedules keep for a thread beside padded inputs: tiles of partial sums, in whole pages.
_TILES_BYTES_PER_THREAD = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """The answer of ``check``.

    ``operators`` counts the nodes of the file by operator, ``flops`` those of one inference (a multiply-add is
    two), ``weights_bytes`` the folded constants, ``peak_activation_bytes`` the most that is alive at once
    without sliding windows, ``seconds_per_100_trials`` a rough figure for planning. ``least_memory_bytes`` is what a
    run takes beside weights and inputs with sliding windows wherever they can be, ``usual_memory_bytes`` what it takes
    without any, workspaces of functions not counted. ``safe_memory_limit_bytes`` is the first one with workspaces as
    they are before any schedule makes them smaller, and room for the tiles that schedules add: a limit that a job can
    be expected to keep. Only `check_model` finds them, where shapes are known.
    """

    operators: dict[str, int]
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops: float
    weights_bytes: int
    peak_activation_bytes: int
    seconds_per_100_trials: float
    least_memory_bytes: int | None = None
    usual_memory_bytes: int | None = None
    safe_memory_limit_bytes: int | None = None

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {
            "inputs": [spec.as_dict() for spec in self.inputs],
            "outputs": [spec.as_dict() for spec in self.outputs],
        }


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model that the TVM frontend can take: static inputs, folded constants, converted opset.

    ``report.outputs`` lacks those whose shape ONNX cannot infer; importing completes it.
    """

    model: onnx.ModelProto
    report: PreflightReport


def prepare_model(path: Path, input_shapes: Mapping[str, tuple[int, ...]]) -> PreparedModel:
    """Load, check, bind, convert and fold; every `ModelError` that the file can cause is raised here.

    What `tuner.frontend.gate` refuses never reaches the compiler.
    """
    with told_as_model_error("Reading the model"):
        return _prepare(path, input_shapes)


def _prepare(path: Path, input_shapes: Mapping[str, tuple[int, ...]]) -> PreparedModel:
    model = load_model(path)
    operators = count_operators(model)
    refuse_unsupported(operators)
    opset = default_opset(model)
    inputs = bind_input_shapes(model, input_shapes)
    model = convert_opset(model)
    known = fold_constants(model)
    repair_operators(model.graph, known)
    flops, heavy = count_flops(model.graph, known)
    report = PreflightReport(
        operators=operators,
        opset=opset,
        inputs=inputs,
        outputs=tuple(known[value.name] for value in model.graph.output if value.name in known),
        flops=flops,
        weights_bytes=count_weight_bytes(model.graph, known),
        peak_activation_bytes=peak_activation_bytes(model.graph, known),
        seconds_per_100_trials=_seconds_per_100_trials(flops, heavy),
    )
    require_footprint(
        activation_bytes=report.peak_activation_bytes,
        weights_bytes=report.weights_bytes,
        operators=sum(1 for _ in all_nodes(model)),
    )
    return PreparedModel(model=model, report=report)


def check_model(path: Path, input_shapes: Mapping[str, tuple[int, ...]], target: TargetSpec) -> PreflightReport:
    """Whether the model can be tuned for the target, by importing it; raises `ModelError` with the reason."""
    from schedules.graph.pipeline import prepare
    from tuner.frontend.convert import import_model
    from tuner.memory import plan_memory
    from tuner.ways import Ways

    imported = import_model(path, input_shapes)
    threads = None if target.is_gpu else target.threads
    with told_as_model_error("Lowering the model"):
        ways = Ways(prepare(imported.module), target, every_chain=True)
        usual = plan_memory(ways.direct, threads=None)  # workspaces not counted
        least = plan_memory(ways.fused(ways.smallest_plans), threads=threads)
    if usual is None or least is None:
        return imported.preflight
    tiles_bytes = 0 if threads is None else threads * _TILES_BYTES_PER_THREAD
    return replace(
        imported.preflight,
        least_memory_bytes=min(least.peak_bytes - least.workspace_bytes, usual.peak_bytes) or None,
        usual_memory_bytes=usual.peak_bytes or None,
        safe_memory_limit_bytes=least.peak_bytes + tiles_bytes if least.peak_bytes else None,
    )


def _seconds_per_100_trials(flops: float, heavy_operators: int) -> float:
    run_s = flops / max(heavy_operators, 1) / _YOUNG_FLOPS_PER_S
    return round(100 * (_SECONDS_PER_TRIAL + _RUNS_PER_TRIAL * run_s), 1)
