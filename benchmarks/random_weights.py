"""Random weights for networks whose stored weights hide mistakes.

The ``light_*.onnx`` models of the ``onnx`` package fill their weights with constants: every output is the same number,
and a compiler that permutes channels still looks right.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def randomize_weights(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy with every float weight replaced by seeded random values; the graph stays as it is.

    Convolutions and matrix products get N(0, 2 / fan-in) (He et al. 2015), so that activations keep their size
    through ReLU networks; batch normalization gets scales around 1 and positive variances; other vectors (biases,
    factors) get small values around 0 or 1. Weights made by ``ConstantOfShape`` become initializers. The last product
    before a softmax is scaled by a power of two so that the softmax does not saturate, which would hide mistakes
    again. Deterministic in the seed.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    _materialize_filled_weights(graph)
    rng = np.random.default_rng(seed)
    aliases = _aliases(graph)
    roles: dict[str, tuple[str, int, bool]] = {}
    for node in graph.node:
        if node.output[0] in aliases:
            continue
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        for position, name in enumerate(node.input):
            roles.setdefault(aliases.get(name, name), (node.op_type, position, transposed))
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name in roles:
            operator, position, transposed = roles[tensor.name]
            values = _values(rng, operator, position, tuple(tensor.dims), transposed=transposed)
            _store(tensor, values)
    _tame_logits(model, seed)
    return model


def _store(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    """Overwrite a float tensor's data in place: copying whole messages costs most of the time of large models."""
    tensor.ClearField("float_data")
    tensor.raw_data = values.astype("<f4", copy=False).tobytes()


def _values(
    rng: np.random.Generator, operator: str, position: int, shape: tuple[int, ...], *, transposed: bool
) -> np.ndarray:
    if operator == "BatchNormalization":
        # Scale, bias, running mean, running variance.
        if position in (1, 4):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        return rng.standard_normal(shape, np.float32) * np.float32(0.1)
    if operator in _PRODUCTS and len(shape) > 1:
        match operator:
            case "Gemm":
                fan_in = shape[1] if transposed else shape[0]
            case "MatMul":
                fan_in = shape[-2]
            case "ConvTranspose":
                fan_in = shape[0] * prod(shape[2:])
            case _:
                fan_in = prod(shape[1:])
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2.0 / fan_in))
    if operator in ("Mul", "Div", "Pow"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(0.1)


def _tame_logits(model: onnx.ModelProto, seed: int) -> None:
    """Scale the last weights before each output softmax so that its logits spread by about 1 on a random input."""
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    aliases = _aliases(graph)
    for output in graph.output:
        node = producers.get(output.name)
        if node is None or node.op_type != "Softmax":
            continue
        logits = node.input[0]
        while node is not None and node.op_type not in _PRODUCTS:
            node = producers.get(node.input[0])
        if node is None:
            continue
        spread = float(_evaluate(model, logits, seed).std())
        factor = 2.0 ** -round(float(np.log2(max(spread, 1e-30))))
        for name in (aliases.get(name, name) for name in node.input[1:]):
            scaled = numpy_helper.to_array(weights[name]) * np.float32(factor)
            _store(weights[name], scaled)


def _evaluate(model: onnx.ModelProto, name: str, seed: int) -> np.ndarray:
    """The value of that name on one seeded random input."""
    model.graph.output.add(name=name)
    probe = model.SerializeToString()
    del model.graph.output[-1]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {
        value.name: rng.standard_normal([size if isinstance(size, int) else 1 for size in value.shape], np.float32)
        for value in session.get_inputs()
    }
    return np.asarray(session.run([name], feeds)[0])


def _materialize_filled_weights(graph: onnx.GraphProto) -> None:
    """``ConstantOfShape`` of constants → initializers of that shape."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in constants:
            shape = [int(size) for size in numpy_helper.to_array(constants[node.input[0]])]
            fill = numpy_helper.to_array(node.attribute[0].t) if node.attribute else np.zeros(1, np.float32)
            data_type = helper.np_dtype_to_tensor_dtype(fill.dtype)
            tensor = graph.initializer.add(name=node.output[0], data_type=data_type, dims=shape)
            tensor.raw_data = np.full(shape, fill.reshape(-1)[0]).tobytes()
            # Up to IR 3 every initializer is an input too.
            graph.input.append(helper.make_tensor_value_info(node.output[0], data_type, shape))
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


def _aliases(graph: onnx.GraphProto) -> dict[str, str]:
    """Values that are a weight in another shape (exporters unsqueeze the factors of normalizations) → the weight."""
    constants = {tensor.name for tensor in graph.initializer}
    aliases: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in ("Unsqueeze", "Reshape", "Identity", "Transpose") and node.input:
            source = aliases.get(node.input[0], node.input[0])
            if source in constants:
                aliases[node.output[0]] = source
    return aliases
