"""The gate: each limit is met by a model just inside of it, and refused with its own code just outside."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import models
from tests.fuzz import wire
from tests.fuzz.bombs import doubling_functions
from tests.fuzz.hostile import external_data
from tests.fuzz.seeds import integers, network, seeds
from tuner.errors import ModelError
from tuner.frontend.gate import FoldingBudget, admit, propagated_values, require_footprint
from tuner.frontend.gate.limits import (
    CODE_BYTES_PER_OPERATOR,
    MAX_ATTRIBUTE_NUMBERS,
    MAX_CODE_BYTES,
    MAX_CONSTANT_BYTES,
    MAX_NESTING,
    MAX_NODES,
    MAX_OPERANDS,
    MAX_RANK,
)
from tuner.frontend.load import load_model
from tuner.frontend.preflight import prepare_model
from tuner.frontend.shapes import infer_shapes
from tuner.frontend.tensors import TensorSpec

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LOCAL = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]


def refusal(model: onnx.ModelProto | bytes) -> ModelError:
    with pytest.raises(ModelError) as raised:
        admit(onnx.load_from_string(model) if isinstance(model, bytes) else model)
    assert raised.value.hint
    return raised.value


def relu(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], ["y"], **attributes)


def test_whatever_real_models_have_passes() -> None:
    for path in LIGHT.glob("light_*.onnx"):
        admit(onnx.load(path))
    for content in seeds().values():
        admit(onnx.load_from_string(content))


@pytest.mark.parametrize("seed", range(40))
def test_external_data_is_found_at_any_place(seed: int) -> None:
    assert refusal(external_data(random.Random(seed))).code == "external_data"


def test_nodes_are_counted_with_functions_written_out() -> None:
    admit(onnx.load_from_string(wire.chain(2000)))
    found = refusal(wire.chain(MAX_NODES + 1))
    assert (found.code, found.details) == (
        "model_too_complex",
        {"limit": "nodes", "found": MAX_NODES + 1, "allowed": MAX_NODES},
    )
    assert refusal(doubled(16)).details["limit"] == "nodes"
    # More digits than a program reads.
    assert refusal(doubled(300)).details["found"] == 2**53 - 1
    admit(doubled(12))


def doubled(levels: int) -> onnx.ModelProto:
    return network([helper.make_node("F0", ["x"], ["y"], domain="local")], functions=doubling_functions(levels))


def test_nesting_is_limited() -> None:
    admit(onnx.load_from_string(wire.nested_branches(MAX_NESTING)))
    assert refusal(wire.nested_branches(MAX_NESTING + 1)).details["limit"] == "nesting"


def test_ranks_are_limited_declared_and_inferred(tmp_path: Path) -> None:
    shape = [1] * (MAX_RANK + 1)
    admit(network([relu()], inputs={"x": shape[1:]}, outputs={"y": shape[1:]}))
    assert refusal(network([relu()], inputs={"x": shape}, outputs={"y": shape})).details["limit"] == "rank"
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, raw_data=bytes(4))
    assert refusal(network([relu()], initializers=[weight])).details["limit"] == "rank"
    axes = integers("axes", *range(MAX_RANK - 1))
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["h"]), helper.make_node("Squeeze", ["h", "axes"], ["y"])]
    path = models.write(network(nodes, initializers=[axes]), tmp_path / "model.onnx")
    with pytest.raises(ModelError) as raised:
        prepare_model(path, {})
    assert raised.value.details["limit"] == "rank"


@pytest.mark.parametrize("count", [2 * MAX_RANK + 1, 5000])
def test_lists_of_axes_are_limited_where_inference_does_not_see_them(tmp_path: Path, count: int) -> None:
    axes = integers("axes", *range(count))
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["h"]), helper.make_node("Squeeze", ["h", "axes"], ["y"])]
    with pytest.raises(ModelError) as raised:
        prepare_model(models.write(network(nodes, initializers=[axes]), tmp_path / "model.onnx"), {})
    assert raised.value.details["limit"] == "rank"


def test_a_range_of_a_trillion_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["million", "million"], ["trillion"]),
        helper.make_node("Range", ["zero", "trillion", "one"], ["r"]),
        helper.make_node("ReduceMax", ["r"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]

    def model(million: int) -> onnx.ModelProto:
        numbers = {"million": million, "zero": 0, "one": 1}
        given = [numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in numbers.items()]
        return network(nodes, initializers=given)

    prepare_model(models.write(model(100), tmp_path / "few.onnx"), {})
    with pytest.raises(ModelError) as raised:
        prepare_model(models.write(model(10**6), tmp_path / "many.onnx"), {})
    assert raised.value.details["limit"] == "elements"


def test_operands_are_limited() -> None:
    admit(network([helper.make_node("Sum", ["x"] * (MAX_OPERANDS - 1), ["y"])]))
    assert refusal(network([helper.make_node("Sum", ["x"] * MAX_OPERANDS, ["y"])])).details["limit"] == "operands"
    outputs = {f"y{index}": [2, 3] for index in range(MAX_OPERANDS + 1)}
    many = network([helper.make_node("Relu", ["x"], [name]) for name in outputs], outputs=outputs)  # type: ignore[arg-type]
    assert refusal(many).details["limit"] == "operands"


def test_attributes_and_names_are_limited() -> None:
    admit(network([relu(axes=[1] * MAX_ATTRIBUTE_NUMBERS)]))
    assert refusal(network([relu(axes=[1] * (MAX_ATTRIBUTE_NUMBERS + 1))])).details["limit"] == "attribute_numbers"
    assert refusal(network([relu(text="a" * 70_000)])).details["limit"] == "text_bytes"
    assert refusal(network([relu(name="n" * 5000)])).details["limit"] == "name_bytes"
    # Where PyTorch writes stack traces.
    admit(network([relu(doc_string="d" * 100_000)]))


def test_a_name_that_is_no_text_is_refused() -> None:
    content = network([relu()]).SerializeToString().replace(b"Relu", b"\xff\xfe\xfd\xfc")
    assert refusal(content).code == "model_invalid"
    outside = TensorProto(name="wwww", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    content = network([relu()], initializers=[outside]).SerializeToString().replace(b"wwww", b"\xff\xfe\xfd\xfc")
    assert refusal(content).code == "model_invalid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"raw_data": bytes(23)}, "model_invalid"),
        ({"raw_data": bytes(25)}, "model_invalid"),
        ({"dims": [-2, -3]}, "model_invalid"),
        ({"data_type": 77}, "model_invalid"),
        ({"data_type": 0}, "model_invalid"),
        ({"dims": [2**32, 2**32]}, "model_too_large"),
        ({"dims": [2**31]}, "model_too_large"),
    ],
)
def test_a_tensor_has_what_it_says(changes: dict[str, object], code: str) -> None:
    right = {"name": "w", "data_type": TensorProto.FLOAT, "dims": [2, 3], "raw_data": bytes(24)}
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    admit(network(nodes, initializers=[TensorProto(**right)]))
    assert refusal(network(nodes, initializers=[TensorProto(**{**right, **changes})])).code == code


def test_values_do_not_depend_on_themselves() -> None:
    ring = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    found = refusal(network([*ring, helper.make_node("Relu", ["b"], ["y"])]))
    assert found.code == "cyclic_graph"
    assert set(found.details["cycle"]) == {"a", "b"}  # type: ignore[call-overload]
    assert "b → a → b" in found.message or "a → b → a" in found.message
    body = helper.make_graph(ring, "g", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2, 3])])
    assert refusal(network([helper.make_node("If", ["c"], ["y"], then_branch=body)])).code == "cyclic_graph"
    # A branch that reads what comes of it.
    back = helper.make_graph([helper.make_node("Relu", ["y"], ["z"])], "g", [], [onnx.ValueInfoProto(name="z")])
    assert refusal(network([helper.make_node("If", ["c"], ["y"], then_branch=back)])).code == "cyclic_graph"
    called = [
        helper.make_function(
            "local", name, ["a"], ["b"], [helper.make_node(other, ["a"], ["b"], domain="local")], LOCAL
        )
        for name, other in (("F", "G"), ("G", "F"))
    ]
    node = helper.make_node("F", ["x"], ["y"], domain="local")
    assert refusal(network([node], functions=called)).code == "cyclic_graph"


def test_what_is_out_of_order_only_is_no_cycle(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])]
    admit(network(nodes))
    with pytest.raises(ModelError) as raised:
        load_model(models.write(network(nodes), tmp_path / "model.onnx"))
    assert raised.value.code == "model_invalid"


def test_a_name_stands_for_one_thing() -> None:
    def kind(model: onnx.ModelProto) -> object:
        found = refusal(model)
        assert found.code == "duplicate_name"
        return found.details["kind"]

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    assert kind(network([relu(), relu()])) == "value"
    assert kind(network([helper.make_node("Relu", ["x"], ["x"])])) == "value"
    twice = network([relu()])
    twice.graph.input.append(value)
    assert kind(twice) == "value"
    twice = network([relu()])
    twice.graph.output.append(twice.graph.output[0])
    assert kind(twice) == "output"
    weight = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    assert kind(network([relu()], initializers=[weight, weight])) == "value"
    called = helper.make_function("local", "F", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], LOCAL)
    assert kind(network([relu()], functions=[called, called])) == "function"
    versions = network([relu()])
    versions.opset_import.append(helper.make_opsetid("ai.onnx", 7))
    assert kind(versions) == "operator set"
    # Up to IR 3 initializers are inputs too; and the same operator set may be named twice.
    old = network([relu()], initializers=[weight])
    old.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]))
    old.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    admit(old)


def test_what_shape_inference_would_compute_with_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector of 2**21 elements is not propagated, and the model is imported all the same."""
    nodes = [helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(20)]
    nodes += [
        helper.make_node("ReduceMax", ["v20"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    model = network(nodes, initializers=[integers("v0", 1, 2)])
    assert propagated_values(onnx.shape_inference.infer_shapes(model)) == 2**22 - 4
    few = onnx.load_from_string(seeds()["constants"])
    asked: list[bool] = []
    infer = onnx.shape_inference.infer_shapes

    def watch(*given: object, data_prop: bool, **options: object) -> onnx.ModelProto:
        asked.append(data_prop)
        return infer(*given, data_prop=data_prop, **options)

    monkeypatch.setattr("tuner.frontend.shapes.shape_inference.infer_shapes", watch)
    infer_shapes(model)
    assert asked == [False, False]
    infer_shapes(few)
    assert asked == [False, False, False, True]
    prepared = prepare_model(models.write(model, tmp_path / "model.onnx"), {})
    assert [node.op_type for node in prepared.model.graph.node] == ["Add"]


def test_constants_are_counted_over_all_passes_of_folding() -> None:
    half = TensorSpec(name="h", shape=(MAX_CONSTANT_BYTES // 8,), dtype="float32")
    budget = FoldingBudget()
    budget.spend([half])
    budget.spend([half])
    with pytest.raises(ModelError) as raised:
        budget.spend([half])
    assert raised.value.code == "model_too_large"
    with pytest.raises(ModelError) as raised:
        FoldingBudget().spend([], flops=1e13)
    assert raised.value.code == "model_too_large"


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "MatMul"])
@pytest.mark.parametrize("inside", [False, True])
def test_constants_that_grow_are_refused_before_they_do(tmp_path: Path, operator: str, inside: bool) -> None:
    side = 2**15
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    given = [
        one,
        integers("size", side, side),
        integers("pads", 0, 0, side, side),
        numpy_helper.from_array(np.asarray([side, side], np.float32), "scales"),
        *(numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in (("a", 0), ("b", 2**30), ("c", 1))),
    ]
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["size"], ["huge"])],
        "Expand": [helper.make_node("Expand", ["one", "size"], ["huge"])],
        "Tile": [helper.make_node("Tile", ["one", "size"], ["huge"])],
        "Range": [helper.make_node("Range", ["a", "b", "c"], ["huge"])],
        "Resize": [helper.make_node("Resize", ["one", "", "scales"], ["huge"])],
        "Pad": [helper.make_node("Pad", ["one", "pads"], ["huge"])],
        "MatMul": [
            helper.make_node("Expand", ["one", "column"], ["tall"]),
            helper.make_node("Transpose", ["tall"], ["wide"]),
            helper.make_node("MatMul", ["tall", "wide"], ["huge"]),
        ],
    }[operator]
    given.append(integers("column", side, 1))
    nodes.append(helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
    if inside:
        body = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])], given)
        nodes = [helper.make_node("If", ["yes"], ["sum"], then_branch=body, else_branch=body)]
        given = [numpy_helper.from_array(np.asarray(True), "yes")]
    model = network([*nodes, helper.make_node("Add", ["x", "sum"], ["y"])], initializers=given)
    with pytest.raises(ModelError) as raised:
        prepare_model(models.write(model, tmp_path / "model.onnx"), {})
    assert raised.value.code == "model_too_large"
    assert "GiB" in raised.value.message


def test_what_the_machine_cannot_run_is_refused(tmp_path: Path) -> None:
    require_footprint(activation_bytes=100, weights_bytes=50, operators=3, memory_bytes=150)
    with pytest.raises(ModelError) as raised:
        require_footprint(activation_bytes=101, weights_bytes=50, operators=3, memory_bytes=150)
    assert raised.value.code == "model_too_large"
    # Three terabytes of activations.
    inputs = {"x": [2**18, 1], "z": [1, 2**13 - 1]}
    nodes = [
        helper.make_node("MatMul", ["x", "z"], ["h0"]),
        *(helper.make_node("Exp", ["h0"], [f"e{index}"]) for index in range(400)),
        helper.make_node("Sum", [f"e{index}" for index in range(400)], ["y"]),
    ]
    model = network(nodes, inputs=inputs, outputs={"y": [2**18, 2**13 - 1]})  # type: ignore[arg-type]
    with pytest.raises(ModelError) as raised:
        prepare_model(models.write(model, tmp_path / "model.onnx"), {})
    assert raised.value.code == "model_too_large"


def test_code_is_limited() -> None:
    most = MAX_CODE_BYTES // CODE_BYTES_PER_OPERATOR
    require_footprint(activation_bytes=1, weights_bytes=1, operators=most)
    with pytest.raises(ModelError) as raised:
        require_footprint(activation_bytes=1, weights_bytes=1, operators=most + 1)
    assert (raised.value.code, raised.value.details["limit"]) == ("model_too_complex", "code_bytes")


def test_more_elements_than_an_index_reaches_are_refused(tmp_path: Path) -> None:
    model = network([relu()], inputs={"x": [2**16, 2**16]}, outputs={"y": [2**16, 2**16]})
    with pytest.raises(ModelError) as raised:
        prepare_model(models.write(model, tmp_path / "model.onnx"), {})
    assert raised.value.details["limit"] == "elements"


def test_a_fault_of_a_library_is_told_as_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("nobody thought of this")

    path = models.write(models.perceptron(), tmp_path / "model.onnx")
    monkeypatch.setattr("tuner.frontend.preflight.fold_constants", fail)
    with pytest.raises(ModelError) as raised:
        prepare_model(path, {})
    assert raised.value.code == "import_failed"
    assert "nobody thought of this" in raised.value.message

    def insist(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("tuner.frontend.preflight.fold_constants", insist)
    with pytest.raises(ModelError, match="AssertionError in insist"):
        prepare_model(path, {})

    def exhaust(*_: object) -> None:
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr("tuner.frontend.preflight.fold_constants", exhaust)
    with pytest.raises(MemoryError):
        prepare_model(path, {})
