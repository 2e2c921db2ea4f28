"""What the server itself reads of an upload: any bytes are a model's summary or a refusal, in bounded work."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import Invalid, NotOnnx
from service.onnx_sniff import sniff
from tests.fuzz import wire

pytestmark = pytest.mark.fuzz

# Field numbers of ModelProto, GraphProto, NodeProto, AttributeProto and TensorProto, and some of none.
_NUMBERS = st.sampled_from([1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 20, 22, 23, 25, 99])
_LEAVES = st.binary(max_size=12) | st.integers(0, 2**64 - 1)
_CONTENTS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(st.tuples(_NUMBERS, inner), max_size=4).map(
        lambda fields: b"".join(wire.field(number, content) for number, content in fields)
    ),
    max_leaves=30,
)
_FIELDS = st.lists(st.tuples(_NUMBERS, _CONTENTS), max_size=6)
_QUICKLY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def is_answered(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(NotOnnx, Invalid):
        summary = sniff(path, max_opset=28)
        assert summary.ir_version is not None
        assert "\0" not in str(summary)


@_QUICKLY
@given(content=st.binary(max_size=400))
def test_any_bytes_have_an_answer(tmp_path: Path, content: bytes) -> None:
    is_answered(tmp_path / "model.onnx", content)


@_QUICKLY
@given(fields=_FIELDS)
def test_any_messages_have_an_answer(tmp_path: Path, fields: list[tuple[int, bytes | int]]) -> None:
    begin = wire.field(1, 10) + wire.field(8, wire.field(2, 18))
    is_answered(tmp_path / "model.onnx", begin + b"".join(wire.field(number, content) for number, content in fields))
