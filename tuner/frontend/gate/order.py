"""Names that are given once, and values that are computed before they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

import onnx

from tuner.errors import ModelError
from tuner.frontend.walk import ONNX_DOMAINS, outer_values


def refuse_duplicates(model: onnx.ModelProto, graphs: Iterable[onnx.GraphProto]) -> None:
    """Raises `ModelError` (``duplicate_name``) for two values, outputs, functions or operator sets of one name."""
    for graph in graphs:
        constants = [tensor.name for tensor in graph.initializer]
        constants += [sparse.values.name for sparse in graph.sparse_initializer]
        initial = set(constants)
        # Up to IR 3 every initializer is listed as an input too.
        inputs = [value.name for value in graph.input if value.name not in initial]
        computed = [name for node in graph.node for name in node.output if name]
        _refuse_repeated("value", [*constants, *inputs, *computed])
        _refuse_repeated("input", [value.name for value in graph.input])
        _refuse_repeated("output", [value.name for value in graph.output])
    for function in model.functions:
        computed = [name for node in function.node for name in node.output if name]
        _refuse_repeated("value", [*function.input, *computed])
    _refuse_repeated("function", [":".join(part for part in function_key(each)) for each in model.functions])
    versions = {("" if each.domain in ONNX_DOMAINS else each.domain, each.version) for each in model.opset_import}
    _refuse_repeated("operator set", [domain or "ai.onnx" for domain, _ in versions])


def refuse_cycles(model: onnx.ModelProto, graphs: Iterable[onnx.GraphProto]) -> None:
    """Raises `ModelError` (``cyclic_graph``) where a value depends on itself. What is merely out of order is left to
    onnx.checker."""
    for nodes in (*(graph.node for graph in graphs), *(function.node for function in model.functions)):
        _refuse_cycle(nodes)


def function_key(function: onnx.FunctionProto) -> tuple[str, str, str]:
    """What a node names to call it: domain, operator, overload."""
    return ("" if function.domain in ONNX_DOMAINS else function.domain, function.name, function.overload)


def called_key(node: onnx.NodeProto) -> tuple[str, str, str]:
    """The function that a node would call."""
    return ("" if node.domain in ONNX_DOMAINS else node.domain, node.op_type, node.overload)


def cyclic(what: str, names: Sequence[str]) -> ModelError:
    """The error for a cycle through those names."""
    shown = " → ".join([*names[:8], *(["…"] if len(names) > 8 else [])])
    return ModelError(
        f"{what} of the model depend on themselves: {shown}.",
        code="cyclic_graph",
        hint="Loops are written with the operators Loop and Scan. Export the model again.",
        details={"cycle": list(names[:100])},
    )


def _refuse_cycle(nodes: Sequence[onnx.NodeProto]) -> None:
    made_by = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    reads = {
        index: {made_by[name] for name in outer_values(node) if name in made_by} for index, node in enumerate(nodes)
    }
    if all(before < index for index, needed in reads.items() for before in needed):
        return
    try:
        TopologicalSorter(reads).prepare()
    except CycleError as error:
        raise cyclic("Values", [next(iter(nodes[index].output), "") for index in error.args[1]]) from None


def _refuse_repeated(what: str, names: Iterable[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ModelError(
            f"The model has more than one {what} of the same name: {', '.join(map(repr, repeated[:3]))}"
            f"{', …' if len(repeated) > 3 else ''}.",
            code="duplicate_name",
            hint="Each name stands for one value. Export the model again, or rename them.",
            details={"kind": what, "names": repeated[:50]},
        )
