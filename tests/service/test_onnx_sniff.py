"""The sniffer agrees with ONNX, and no bytes make it fail in another way than saying so."""

from __future__ import annotations

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
