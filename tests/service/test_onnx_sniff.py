"""The sniffer agrees with ONNX, and no bytes make it fail in another way than saying so."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.errors import Invalid, NotOnnx
from service.onnx_sniff import _Reader, sniff
from service.protobuf_wire import Scanner, WireError
from tests import models
from tests.fuzz import wire

GOOD = models.convolutional().SerializeToString()
ONNX_MODELS = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def sniffed(content: bytes, folder: Path) -> str:
    """The summary's producer, or the code of the refusal."""
    path = folder / "m.onnx"
    path.write_bytes(content)
    try:
        return f"opset {sniff(path, max_opset=28).opset}"
    except (NotOnnx, Invalid) as error:
        return error.code if error.hint else "no hint"


@pytest.mark.parametrize("path", ONNX_MODELS, ids=lambda path: path.stem)
def test_it_reads_what_onnx_reads(path: Path) -> None:
    summary, model = sniff(path, max_opset=28), onnx.load(path)
    initializers = {tensor.name for tensor in model.graph.initializer}
    assert summary.ir_version == model.ir_version
    assert summary.opset == model.opset_import[0].version
    assert summary.node_count == len(model.graph.node)
    assert [value.name for value in summary.inputs] == [v.name for v in model.graph.input if v.name not in initializers]
    for value, expected in zip(summary.outputs, model.graph.output, strict=True):
        assert value.name == expected.name
        dims = expected.type.tensor_type.shape.dim
        assert value.shape == [d.dim_value or d.dim_param or None for d in dims]


def test_symbolic_dimensions_keep_their_names(tmp_path: Path) -> None:
    path = models.write(models.dynamic_batch(), tmp_path / "m.onnx")
    (value,) = sniff(path, max_opset=28).inputs
    assert value.shape is not None
    assert isinstance(value.shape[0], str)


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_random_bytes_are_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    assert sniffed(content, tmp_path) in ("not_onnx", "external_data", "unsupported_opset")


@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_flipped_byte_is_survived(tmp_path: Path, position: int, value: int) -> None:
    content = bytearray(GOOD)
    content[position] = value
    assert sniffed(bytes(content), tmp_path) != "no hint"


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, len(GOOD) - 1))
def test_a_truncated_file_is_no_onnx_file(tmp_path: Path, size: int) -> None:
    assert sniffed(GOOD[:size], tmp_path) == "not_onnx"


# Field numbers of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto, and one of none.
_NUMBERS = st.sampled_from([1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 20, 22, 23, 25, 99])
_MESSAGES = st.recursive(
    st.binary(max_size=12) | st.integers(0, 2**64 - 1),
    lambda inner: st.lists(st.tuples(_NUMBERS, inner), max_size=4).map(
        lambda fields: b"".join(wire.field(number, content) for number, content in fields)
    ),
    max_leaves=30,
)


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.lists(st.tuples(_NUMBERS, _MESSAGES), max_size=6))
def test_any_messages_are_a_summary_or_a_refusal(tmp_path: Path, fields: list[tuple[int, bytes | int]]) -> None:
    """What is taken can be kept in a database: small numbers, text without NUL."""
    content = wire.field(1, 10) + wire.field(8, wire.field(2, 18))
    content += b"".join(wire.field(number, value) for number, value in fields)
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with contextlib.suppress(NotOnnx, Invalid):
        summary = sniff(path, max_opset=28)
        assert summary.ir_version is not None
        assert summary.ir_version < 2**31
        assert "\0" not in str(summary)


@pytest.mark.parametrize("place", ["training", "default attribute"])
def test_external_data_is_found_where_only_training_and_functions_are(tmp_path: Path, place: str) -> None:
    outside = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    model = models.perceptron()
    if place == "training":
        model.training_info.add().algorithm.initializer.append(outside)
    else:
        model.functions.add(name="F").attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR, t=outside)
    assert sniffed(model.SerializeToString(), tmp_path) == "external_data"


def test_more_inputs_or_outputs_than_are_kept_are_refused(tmp_path: Path) -> None:
    model = models.perceptron()
    for index in range(1024):
        model.graph.output.add(name=f"y{index}")
    assert sniffed(model.SerializeToString(), tmp_path) == "model_too_complex"
    del model.graph.output[0]
    assert sniffed(model.SerializeToString(), tmp_path) == "opset 18"


def test_deep_nesting_ends() -> None:
    deep = b""
    for _ in range(300):  # a graph with a node with an attribute with a graph …
        for tag in (0x32, 0x2A, 0x0A):
            deep = bytes([tag]) + _size(deep) + deep
    content = b"\x08\x07" + b"\x3a" + _size(deep) + deep + b"\x42\x02\x10\x11"
    reader = _Reader(Scanner(content, max_fields=100_000))
    with pytest.raises(WireError, match="nest"):
        reader.model(len(content))


def test_work_is_bounded() -> None:
    with pytest.raises(WireError, match="too many"):
        list(Scanner(b"\x08\x01" * 1000, max_fields=999).fields(0, 2000))


def _size(content: bytes) -> bytes:
    size, encoded = len(content), b""
    while size >= 0x80:
        encoded += bytes([size & 0x7F | 0x80])
        size >>= 7
    return encoded + bytes([size])
