"""The graph passes one by one: what they rewrite, and what they must leave alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from tvm import relax
from tvm.ir import IRModule, assert_structural_equal
from tvm.tirx import PrimFunc

from schedules.blocks import block_names
from schedules.graph.affine import fold_affine
from schedules.graph.clip import restore_clip
from schedules.graph.fold import fold_constants
from schedules.graph.identities import remove_identities
from schedules.graph.layout import channels_last, count_transposes
from schedules.graph.layout_free import ATTRIBUTE, mark_layout_free
from schedules.graph.padding import restore_padding
from schedules.graph.pipeline import prepare
from schedules.graph.powers import expand_powers
from schedules.graph.rewrite import array_of, op_name, rewrite_main
from schedules.graph.sblock_attributes import drop_custom_rules
from schedules.graph.vector_math import vectorize_math
from tests.schedules import building, networks
from tests.schedules.networks import Network


def values(mod: IRModule) -> list[relax.Expr]:
    return [binding.value for block in mod["main"].body.blocks for binding in block.bindings]


def operators(mod: IRModule) -> Counter[str]:
    return Counter(name for value in values(mod) if (name := op_name(value)))


def results(mod: IRModule, model: onnx.ModelProto, data: Any = None) -> list[Any]:
    inputs = networks.example_input(model) if data is None else data
    return building.run(building.untuned_build(mod), inputs)


def assert_same_results(before: IRModule, after: IRModule, model: onnx.ModelProto) -> None:
    for old, new in zip(results(before, model), results(after, model), strict=True):
        assert building.relative_error(new, old) < 1e-5


def clipped(low: float | None, high: float | None, *, opset: int = 13) -> onnx.ModelProto:
    n = Network(seed=11)
    if opset < 11:
        bounds = {key: bound for key, bound in (("min", low), ("max", high)) if bound is not None}
        return n.model(n.node("Clip", "x", **bounds), opset=opset)
    names = ["" if bound is None else n.value(np.float32(bound)) for bound in (low, high)]
    return n.model(n.node("Clip", "x", *names), opset=opset)


@pytest.mark.parametrize("opset", [6, 11, 13])
def test_clip_becomes_operators(opset: int) -> None:
    model = clipped(0.0, 0.5, opset=opset)
    before = networks.imported(model)

    after = restore_clip(fold_constants(before))

    assert operators(after) == {"maximum": 1, "minimum": 1}
    assert_same_results(before, after, model)


@pytest.mark.parametrize(("low", "high"), [(None, 0.5), (-0.5, None), (2.0, 1.0), (float("nan"), 0.5)])
def test_clip_keeps_missing_crossed_and_nan_bounds(low: float | None, high: float | None) -> None:
    """Crossed bounds give ``max`` everywhere, as ONNX says; a NaN bound is none."""
    model = clipped(low, high)
    before = networks.imported(model)
    data = networks.example_input(model)

    after = restore_clip(fold_constants(before))

    assert operators(after)["call_tir"] == 0
    (output,) = results(after, model)
    lower = -np.inf if low is None or np.isnan(low) else low
    np.testing.assert_array_equal(output, np.minimum(np.maximum(data, lower), np.inf if high is None else high))


def test_clip_keeps_what_happened_to_nan_inputs() -> None:
    model = clipped(0.0, 0.5)
    before = networks.imported(model)
    data = networks.example_input(model)
    data[0, 0, 0, :3] = np.nan
    after = restore_clip(fold_constants(before))
    np.testing.assert_array_equal(results(after, model, data)[0], results(before, model, data)[0])


def test_clip_leaves_other_functions_alone() -> None:
    """Reflection padding is a PrimFunc of the importer too."""
    n = Network(seed=12)
    pads = n.value(np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64))
    mod = networks.imported(n.model(n.node("Pad", "x", pads, mode="reflect")))
    assert operators(restore_padding(restore_clip(mod))) == operators(mod) == {"call_tir": 1}


def padded(*, fill: float = 0.0, channels: int = 0) -> onnx.ModelProto:
    n = Network(seed=13)
    pads = n.value(np.array([0, channels, 1, 2, 0, channels, 2, 1], dtype=np.int64))
    t = n.node("Pad", "x", pads, n.value(np.float32(fill)))
    return n.model(n.conv(t, inputs=8 + 2 * channels, outputs=4, pads=[0, 1, 0, 1]))


def test_padding_moves_into_the_convolution() -> None:
    model = padded()
    before = networks.imported(model)
    after = restore_padding(before)
    assert operators(after)["nn.pad"] == operators(after)["call_tir"] == 0
    (convolution,) = (value for value in values(after) if op_name(value) == "nn.conv2d")
    assert list(convolution.attrs.padding) == [1, 3, 2, 2]
    assert_same_results(before, after, model)


@pytest.mark.parametrize("model", [padded(fill=1.0), padded(channels=1)], ids=["not zero", "channels too"])
def test_padding_that_a_convolution_cannot_do_stays_an_operator(model: onnx.ModelProto) -> None:
    before = networks.imported(model)
    after = restore_padding(before)
    assert operators(after)["nn.pad"] == 1
    assert_same_results(before, after, model)


def test_sum_of_two_becomes_an_addition_and_identities_vanish() -> None:
    n = Network(seed=14)
    same = n.node("Transpose", n.node("Transpose", "x", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    t = n.node("Sum", n.node("Reshape", same, n.value(np.array([1, 8, 14, 14], dtype=np.int64))), "x")
    t = n.node("Max", t, n.node("Abs", "x"), n.node("Neg", "x"))
    model = n.model(t)
    before = networks.imported(model)
    after = remove_identities(fold_constants(before))
    assert operators(after) == {"add": 1, "maximum": 2, "abs": 1, "negative": 1}
    assert_same_results(before, after, model)


def test_a_sum_over_a_real_axis_stays() -> None:
    n = Network(seed=15)
    model = n.model(n.node("ReduceSum", "x", n.value(np.array([1], dtype=np.int64)), keepdims=0))
    assert operators(remove_identities(networks.imported(model)))["sum"] == 1


def test_batch_norm_goes_into_the_weights_before_it() -> None:
    n = Network(seed=16)
    t = n.batch_norm(n.conv("x", inputs=8, outputs=16), 16)
    t = n.node("Add", n.node("Mul", t, n.weight(16, 1, 1)), n.weight(1, 16, 1, 1))
    model = n.model(t)
    before = networks.imported(model)
    after = fold_affine(fold_constants(before))
    assert operators(after) == {"nn.conv2d": 1, "add": 1}
    assert_same_results(before, after, model)


def test_batch_norm_without_a_convolution_of_its_own_is_one_scale_and_shift() -> None:
    n = Network(seed=17)
    shared = n.conv("x", inputs=8, outputs=8)
    t = n.node("Add", n.batch_norm(shared, 8), shared)
    model = n.model(n.batch_norm(t, 8))
    before = networks.imported(model)
    after = fold_affine(fold_constants(before))
    assert operators(after) == {"nn.conv2d": 1, "multiply": 2, "add": 4}
    assert_same_results(before, after, model)


def test_a_constant_that_widens_its_operand_is_no_scale() -> None:
    n = Network(seed=18)
    model = n.model(n.node("Mul", "x", n.weight(4, 8, 14, 14)), shape=(1, 8, 14, 14))
    before = networks.imported(model)
    after = fold_affine(before)
    assert operators(after) == {"multiply": 1}
    assert_same_results(before, after, model)


@pytest.mark.parametrize("exponent", [-0.5, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0])
def test_short_powers_become_roots_and_products(exponent: float) -> None:
    n = Network(seed=22)
    model = n.model(n.node("Pow", n.node("Abs", "x"), n.value(np.float32(exponent))))
    before = networks.imported(model)
    after = expand_powers(before)
    assert "power" not in operators(after)
    assert_same_results(before, after, model)


@pytest.mark.parametrize("exponent", [1.7, -3.0])
def test_other_powers_stay(exponent: float) -> None:
    n = Network(seed=23)
    model = n.model(n.node("Pow", n.node("Abs", "x"), n.value(np.float32(exponent))))
    assert operators(expand_powers(networks.imported(model)))["power"] == 1


def test_constants_are_folded_in_their_own_type() -> None:
    n = Network(seed=19)
    indices = n.node("Add", n.value(np.array([0, 2], dtype=np.int64)), n.value(np.array([1, 1], dtype=np.int64)))
    model = n.model(n.node("Gather", "x", indices, axis=1))
    before = networks.imported(model)
    after = fold_constants(before)
    assert operators(after) == {"take": 1}
    assert_same_results(before, after, model)


def test_a_constant_result_survives_folding() -> None:
    n = Network(seed=20)
    weight = n.weight(4, 6)
    model = n.model(n.node("Transpose", weight, perm=[1, 0]), n.node("Relu", "x"))
    before = networks.imported(model)
    assert_same_results(before, fold_constants(before), model)


@pytest.mark.parametrize(
    ("name", "transposes"),
    [("classifier", 2), ("residual", 1), ("mobile", 2), ("shuffled", 3), ("normalized", 2), ("dense", 2), ("mixed", 2)],
)
def test_channels_last_needs_few_transposes(name: str, transposes: int) -> None:
    """One for the input, one for a 4-D output or before flattening; `shuffled` has its own one in the middle."""
    model = networks.NETWORKS[name]()
    before = networks.imported(model)
    after = prepare(before)
    convolutions = [value for value in values(after) if op_name(value) == "nn.conv2d"]
    assert {str(value.attrs.data_layout) for value in convolutions} == {"NHWC"}
    assert {str(value.attrs.kernel_layout) for value in convolutions} == {"HWIO"}
    assert all(array_of(value.args[1]) is not None for value in convolutions)
    assert count_transposes(after) == transposes
    assert_same_results(before, after, model)


def test_without_convolutions_nothing_is_transposed() -> None:
    mod = networks.imported(networks.perceptron())
    assert channels_last(mod) is mod


@pytest.mark.parametrize(
    ("name", "transposes"),
    [
        ("squeezenet", 1),
        ("resnet50", 1),
        ("densenet121", 1),
        ("inception_v1", 1),
        ("inception_v2", 1),
        ("bvlc_alexnet", 2),
        ("shufflenet", 17),
    ],
)
def test_light_models_need_few_transposes(name: str, transposes: int) -> None:
    """ShuffleNet's 16 channel shuffles are transposes whatever the layout; AlexNet flattens before its first Gemm."""
    prepared = prepare(networks.light_model(name))
    assert count_transposes(prepared) == transposes
    assert not {"nn.pad", "call_tir", "stack", "nn.batch_norm", "nn.dropout"} & operators(prepared).keys()


@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
def test_epilogues_are_fused_into_convolutions(name: str) -> None:
    fused = building.fused(prepare(networks.light_model(name)))
    names = Counter(
        value.args[0].name_hint.rstrip("0123456789") for value in values(fused) if op_name(value) == "call_tir"
    )
    assert not [called for called in names if called.startswith(("add", "relu", "fused_add", "pad"))]
    assert operators(fused).keys() == {"call_tir"}


def test_weights_are_layout_free_and_biases_are_not() -> None:
    fused = building.fused(prepare(networks.imported(networks.classifier())))
    free = {
        variable.name_hint: list(function.attrs[ATTRIBUTE])
        for variable, function in fused.functions.items()
        if isinstance(function, PrimFunc) and ATTRIBUTE in function.attrs
    }
    assert len(free) == 3
    assert set(map(tuple, free.values())) == {(1,)}
    assert any("matmul" in name for name in free)


def test_a_parameter_that_is_not_always_constant_is_not_layout_free() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((16, 32), "float32"))
    weight = relax.const(np.ones((16, 32), dtype=np.float32))
    with builder.function("main", [x]):
        with builder.dataflow():
            first = builder.emit(relax.op.multiply(x, weight))
            result = builder.emit_output(relax.op.multiply(first, x))
        builder.emit_func_output(result)
    legal = relax.transform.LegalizeOps()(builder.finalize())
    marked = mark_layout_free(legal)
    functions = [function for function in marked.functions.values() if isinstance(function, PrimFunc)]
    assert len(functions) == 1
    assert ATTRIBUTE not in functions[0].attrs


def test_pooling_loses_its_request_for_a_custom_rule() -> None:
    n = Network(seed=21)
    mod = networks.imported(n.model(n.node("MaxPool", "x", kernel_shape=[2, 2])))
    legal = relax.transform.LegalizeOps()(mod)
    assert "schedule_rule" in legal.script()
    assert "schedule_rule" not in drop_custom_rules(legal).script()


def test_control_flow_is_left_alone() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.nn.relu(x)))
    mod = builder.finalize()
    assert rewrite_main(mod, lambda _walk, _variable, _value: None) is mod


def test_the_imported_module_is_left_as_it_was() -> None:
    """The untuned build compiles the imported module: nothing of the pipeline may reach it."""
    mod = networks.imported(networks.mobile())
    untouched = networks.imported(networks.mobile())
    fused = building.fused(prepare(mod))
    building.scheduled(fused, seed=1)
    assert_structural_equal(mod, untouched)
    assert "layout_free_buffers" in fused.script()
    assert "layout_free_buffers" not in mod.script()


def test_functions_are_the_same_wherever_they_stand_in_a_network() -> None:
    """Traces find blocks by name; a reduction is named after the tensor that it reduces."""

    def pooled(layers: int) -> PrimFunc:
        n = Network(seed=18)
        t = "x"
        for _ in range(layers):
            t = n.node("Relu", n.conv(t, inputs=8, outputs=8))
        fused = building.fused(prepare(networks.imported(n.model(n.node("GlobalAveragePool", t)))))
        (mean,) = [body for var, body in fused.functions.items() if "mean" in var.name_hint]
        return mean.without_attr("global_symbol")

    scripts = [IRModule({"main": pooled(layers)}) for layers in (1, 3)]
    assert block_names(scripts[0]) == block_names(scripts[1])
    assert any(name.endswith("_red") for name in block_names(scripts[0]))


@pytest.mark.parametrize("operator", ["Erf", "Tanh", "Sigmoid", "Softmax", "Gelu"])
def test_transcendental_functions_are_polynomials_with_the_same_values(operator: str) -> None:
    n = Network(seed=19)
    model = n.model(n.node(operator, "x"), shape=(1, 4, 8, 32), opset=20)
    before = networks.imported(model)
    after = vectorize_math(before)
    assert operators(after) == {"call_tir": 1}
    data = np.linspace(-30, 30, 1024, dtype=np.float32).reshape(1, 4, 8, 32)
    if operator != "Softmax":
        data.flat[:3] = np.nan, np.inf, -np.inf
        data.flat[3:6] = 200.0, -200.0, 0.0
    (expected,), (actual,) = results(before, model, data), results(after, model, data)
    # GELU multiplies the error of erf by its operand
    np.testing.assert_allclose(actual, expected, atol=2e-6 if operator == "Gelu" else 5e-7, rtol=1e-5)
