"""Folding what is constant in an ONNX graph, so that weights arrive in Relax as constants of static shape."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tuner.frontend.cost import node_flops
from tuner.frontend.gate import FoldingBudget
from tuner.frontend.shapes import infer_shapes
from tuner.frontend.tensors import TensorSpec
from tuner.frontend.walk import outer_values, subgraphs

log = logging.getLogger(__name__)

# Not folded: random values, and quantized weights, which must stay integers for the compiler to see them.
# fmt: off
_NEVER_FOLDED = frozenset({
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
    "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
})
# fmt: on
_PASSES = 8


def fold_constants(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    """Replace constant nodes by initializers, in place, and return the static type of every value.

    Alternates shape inference (which makes ``Shape`` of a static value constant) with evaluation by ONNX
    Runtime, until nothing changes: first without what shape inference computes by itself, so that what constants alone
    say is known and counted before. Nodes and initializers that no output needs are dropped. Raises `ModelError`
    (``model_too_large``, ``shape_mismatch``).
    """
    _initializers_as_constants(model)
    budget = FoldingBudget()
    for propagate in (False, True):
        known = infer_shapes(model, propagate=propagate)
        for _ in range(_PASSES):
            if not _fold_shapes(model.graph, known) | _evaluate_constants(model, known, budget):
                break
            known = infer_shapes(model, propagate=propagate)
    _drop_unused(model.graph)
    return known


def _initializers_as_constants(model: onnx.ModelProto) -> None:
    """Initializers that are listed as inputs are defaults to ONNX; here nobody overrides them."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def _fold_shapes(graph: onnx.GraphProto, known: Mapping[str, TensorSpec]) -> bool:
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        spec = known.get(node.input[0]) if node.op_type in ("Shape", "Size") and node.input else None
        if spec is None:
            kept.append(node)
        elif node.op_type == "Size":
            size = np.asarray(np.prod(spec.shape, dtype=np.int64))
            graph.initializer.append(numpy_helper.from_array(size, node.output[0]))
        else:
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            part = spec.shape[bounds.get("start", 0) : bounds.get("end")]
            graph.initializer.append(numpy_helper.from_array(np.asarray(part, np.int64), node.output[0]))
    changed = len(kept) != len(graph.node)
    if changed:
        _replace_nodes(graph, kept)
    return changed


def _evaluate_constants(model: onnx.ModelProto, known: Mapping[str, TensorSpec], budget: FoldingBudget) -> bool:
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    folded: list[onnx.NodeProto] = []
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        foldable = (
            node.op_type not in _NEVER_FOLDED
            and not any(True for _ in subgraphs(node))
            and all(name in constant for name in node.input if name)
            and all(name in known for name in node.output if name)
        )
        (folded if foldable else kept).append(node)
        if foldable:
            constant |= set(node.output)
    if not folded:
        return False
    read_later = outputs.union(*(outer_values(node) for node in kept))
    wanted = [name for node in folded for name in node.output if name in read_later]
    made = [known[name] for node in folded for name in node.output if name]
    budget.spend(made, flops=sum(node_flops(node, known) for node in folded))
    try:
        values = _run(model, folded, wanted)
    except Exception as error:  # ONNX Runtime raises its own family, unrelated to RuntimeError in part
        log.warning("Constant operators were left in the graph: %s", str(error)[:200])
        return False
    for name, value in values.items():
        _add_constant(graph, name, value)
    _replace_nodes(graph, kept)
    return True


def _add_constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    """Append an initializer in place: appending a finished message would copy the weights twice more."""
    if value.dtype.kind == "O":
        graph.initializer.append(numpy_helper.from_array(value, name))
        return
    data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor = graph.initializer.add(name=name, data_type=data_type, dims=value.shape)
    tensor.raw_data = value.tobytes()


def _run(model: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]) -> dict[str, np.ndarray]:
    """Values of those outputs. Filled weights are made by NumPy; the rest is evaluated by ONNX Runtime."""
    given = {tensor.name: tensor for tensor in model.graph.initializer}
    values: dict[str, np.ndarray] = {}
    rest: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type == "ConstantOfShape" and node.input[0] in given:
            fill = numpy_helper.to_array(node.attribute[0].t) if node.attribute else np.zeros(1, np.float32)
            # A view of one element: the weights are written once, into their initializer.
            values[node.output[0]] = np.broadcast_to(fill.reshape(-1)[0], numpy_helper.to_array(given[node.input[0]]))
        else:
            rest.append(node)
    asked = [name for name in wanted if name not in values]
    if asked:
        values |= dict(zip(asked, _run_with_onnxruntime(model, rest, asked, values, given), strict=True))
    return {name: values[name] for name in wanted}


def _run_with_onnxruntime(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    asked: list[str],
    values: Mapping[str, np.ndarray],
    given: Mapping[str, onnx.TensorProto],
) -> list[np.ndarray]:
    import onnxruntime

    made = {name for node in nodes for name in node.output}
    feeds: dict[str, np.ndarray] = {}
    for name in {name for node in nodes for name in node.input if name and name not in made}:
        feeds[name] = values[name] if name in values else numpy_helper.to_array(given[name])
    graph = helper.make_graph(
        nodes,
        "constants",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in asked],
    )
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=min(max(model.ir_version, 4), 10))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(asked, feeds)]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output depends on."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= outer_values(node)
    if len(kept) != len(graph.node):
        _replace_nodes(graph, kept[::-1])
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
