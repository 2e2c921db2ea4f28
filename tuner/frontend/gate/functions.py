"""What a model's own functions stand for: a few that call each other twice are millions of operators."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

import onnx

from tuner.frontend.gate.limits import MAX_NODES, require_count
from tuner.frontend.gate.order import called_key, cyclic, function_key
from tuner.frontend.walk import nodes_of


def require_expansion(model: onnx.ModelProto) -> None:
    """Raises `TooComplex` when inlining would make too many operators, and `ModelError` (``cyclic_graph``) for
    functions that call themselves."""
    bodies = {function_key(function): function for function in model.functions}
    calls = {
        key: {called_key(node) for node in nodes_of(function.node)} & bodies.keys() for key, function in bodies.items()
    }
    sizes: dict[tuple[str, str, str], int] = {}
    try:
        for key in TopologicalSorter(calls).static_order():
            sizes[key] = _size(bodies[key].node, sizes)
    except CycleError as error:
        raise cyclic("Functions", [":".join(key) for key in error.args[1]]) from None
    require_count("operators with its functions written out", _size(model.graph.node, sizes), MAX_NODES, limit="nodes")


def _size(nodes: Iterable[onnx.NodeProto], sizes: dict[tuple[str, str, str], int]) -> int:
    return sum(1 + sizes.get(called_key(node), 0) for node in nodes_of(nodes))
