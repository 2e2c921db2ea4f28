"""What folding would make of constants: counted from inferred shapes, before a byte of it is allocated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from tuner.errors import ModelError
from tuner.frontend.gate.limits import MAX_CONSTANT_BYTES, MAX_FOLDING_FLOPS
from tuner.frontend.tensors import TensorSpec
from tuner.frontend.values import static_spec
from tuner.frontend.walk import subgraphs


@dataclass(kw_only=True)
class FoldingBudget:
    """What all passes of folding may make together."""

    made_bytes: int = 0
    flops: float = 0.0

    def spend(self, made: Iterable[TensorSpec], *, flops: float = 0.0) -> None:
        """Count what is about to be made; raises `ModelError` (``model_too_large``) when it is too much."""
        specs = list(made)
        self.made_bytes += sum(spec.size_bytes for spec in specs)
        self.flops += flops
        if self.made_bytes > MAX_CONSTANT_BYTES:
            largest = max(specs, key=lambda spec: spec.size_bytes)
            raise ModelError(
                f"The model's constants take {self.made_bytes / 1024**3:.1f} GiB once expanded "
                f"({largest.name!r} alone {largest.size_bytes / 1024**3:.1f} GiB); at most 2 GiB can be imported.",
                code="model_too_large",
                hint="Tune a smaller variant of the model.",
                details={"constant_bytes": self.made_bytes},
            )
        if self.flops > MAX_FOLDING_FLOPS:
            raise ModelError(
                f"Computing the model's constants takes {self.flops:.1e} operations, where at most "
                f"{MAX_FOLDING_FLOPS:.0e} are taken.",
                code="model_too_large",
                hint="Fold the model's constants when exporting it, for example with onnxsim.",
                details={"folding_flops": self.flops},
            )


def require_constants(inferred: onnx.ModelProto) -> None:
    """Refuse what branches and bodies would make of constants, however deep; raises `ModelError` (``model_too_large``).

    What the main graph makes is counted pass by pass, where it is folded.
    """
    FoldingBudget().spend(_made_below(inferred.graph, set()))


def _made_below(graph: onnx.GraphProto, outer: set[str]) -> Iterator[TensorSpec]:
    """Types of what constant nodes make in the graphs below this one."""
    graphs = [below for node in graph.node for below in subgraphs(node)]
    if not graphs:
        return
    constant, _ = _constants(graph, outer)
    for below in graphs:
        yield from _constants(below, constant)[1]
        yield from _made_below(below, constant)


def _constants(graph: onnx.GraphProto, outer: set[str]) -> tuple[set[str], list[TensorSpec]]:
    """Names of all that is constant in a graph, and the types of what its nodes make of it."""
    constant = outer | {tensor.name for tensor in graph.initializer}
    made: set[str] = set()
    for node in graph.node:
        if all(name in constant for name in node.input if name) and not any(True for _ in subgraphs(node)):
            constant |= set(node.output)
            made |= set(node.output)
    specs = map(static_spec, [*graph.value_info, *graph.output])
    return constant, [spec for spec in specs if spec is not None and spec.name in made]
