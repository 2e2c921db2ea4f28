"""What an uploaded file says of itself, read without ONNX: is it a whole ModelProto, and one that we can take?

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import Invalid, NotOnnx
from service.protobuf_wire import BYTES, VARINT, Scanner, WireError

# Subgraphs of control flow nest a few levels deep; anything deeper than this is made to hurt.
_MAX_DEPTH = 64
# A network of 10,000 nodes has about 300,000 fields outside of its tensors' data; 5 million take a few seconds.
_MAX_FIELDS = 5_000_000
_MAX_TEXT_BYTES = 200
# Inputs and outputs, each: all are kept in the database. The tuner's gate takes no more either.
_MAX_VALUES = 1024
_MAX_IR_VERSION = 2**31 - 1
_EXTERNAL = 1
_DEFAULT_DOMAINS = ("", "ai.onnx")
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GraphValue:
    """An input or output; ``shape`` is None when the file gives none."""

    name: str
    dtype: str
    shape: list[int | str | None] | None


@dataclass(kw_only=True)
class OnnxSummary:
    """What the file says; ``opset`` is the version of the default operator set."""

    ir_version: int | None = None
    producer: str = ""
    opset: int | None = None
    opsets: dict[str, int] = field(default_factory=dict)
    node_count: int = 0
    inputs: list[GraphValue] = field(default_factory=list)
    outputs: list[GraphValue] = field(default_factory=list)
    external_tensors: list[str] = field(default_factory=list)


def sniff(path: Path, *, max_opset: int) -> OnnxSummary:
    """Read the file's summary.

    Raises `NotOnnx` for anything that is not a whole ModelProto (a truncated file too), and `Invalid` with
    ``external_data``, ``unsupported_opset`` or ``model_too_complex`` for a model that cannot be taken.
    """
    if path.stat().st_size == 0:
        raise NotOnnx("The file is empty.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            summary = _Reader(Scanner(content, max_fields=_MAX_FIELDS)).model(len(content))
        except WireError as error:
            raise NotOnnx(f"This is not a whole ONNX file: {error}.") from None
    if summary.external_tensors:
        names = summary.external_tensors
        raise Invalid(
            f"{len(names)} tensor{'s' if len(names) > 1 else ''} of this model lie in other files "
            f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''}).",
            code="external_data",
            hint="Save the model as one file: onnx.save_model(onnx.load(path), new_path, save_as_external_data=False).",
            details={"tensors": names[:100]},
        )
    if summary.opset is not None and not 1 <= summary.opset <= max_opset:
        raise Invalid(
            f"The model uses opset {summary.opset}; opsets 1 to {max_opset} are known.",
            code="unsupported_opset",
            hint=f"Export it with opset {max_opset} or older, or convert it with onnx.version_converter.",
            details={"opset": summary.opset, "max_opset": max_opset},
        )
    values = max(len(summary.inputs), len(summary.outputs))
    if values > _MAX_VALUES:
        raise Invalid(
            f"The model has {values} inputs or outputs, where at most {_MAX_VALUES} are taken.",
            code="model_too_complex",
            hint="Cut the model into parts.",
            details={"limit": "operands", "found": values, "allowed": _MAX_VALUES},
        )
    return summary


class _Reader:
    """Reads the messages of onnx.proto as far as the summary needs them, every tensor of every subgraph included."""

    def __init__(self, scanner: Scanner) -> None:
        self._scan = scanner
        self._summary = OnnxSummary()

    def model(self, size: int) -> OnnxSummary:
        summary, graph = self._summary, False
        producer, version = "", ""
        for number, wire, value, end in self._scan.fields(0, size):
            if number == 1 and wire == VARINT:
                summary.ir_version = value
            elif number == 2 and wire == BYTES:
                producer = self._short_text(value, end)
            elif number == 3 and wire == BYTES:
                version = self._short_text(value, end)
            elif number == 7 and wire == BYTES:
                graph = True
                self._graph(value, end, depth=0)
            elif number == 8 and wire == BYTES:
                self._opset(value, end)
            elif number == 20 and wire == BYTES:
                self._training(value, end)
            elif number == 25 and wire == BYTES:
                self._function(value, end)
            elif number in (1, 2, 3, 7, 8, 20, 25):
                raise WireError(f"field {number} is not of its kind")
        if summary.ir_version is None or not graph:
            raise WireError("it has no graph" if summary.ir_version is not None else "it has no IR version")
        if summary.ir_version > _MAX_IR_VERSION:
            raise WireError(f"there is no IR version {summary.ir_version}")
        if not summary.opsets:
            raise WireError("it names no operator set, so it may be cut off")
        summary.producer = f"{producer} {version}".strip()
        summary.opset = next((summary.opsets[d] for d in _DEFAULT_DOMAINS if d in summary.opsets), None)
        return summary

    def _opset(self, start: int, stop: int) -> None:
        domain, version = "", 0
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 1 and wire == BYTES:
                domain = self._short_text(value, end)
            elif number == 2 and wire == VARINT:
                version = value
        self._summary.opsets[domain] = version

    def _graph(self, start: int, stop: int, *, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise WireError(f"its graphs nest more than {_MAX_DEPTH} deep")
        initializers: set[str] = set()
        inputs: list[GraphValue] = []
        for number, wire, value, end in self._scan.fields(start, stop):
            if number in (1, 5, 11, 12, 15) and wire != BYTES:
                raise WireError(f"field {number} of a graph is not of its kind")
            if number == 1:
                self._summary.node_count += depth == 0
                self._node(value, end, depth=depth)
            elif number == 5:
                initializers.add(self._tensor(value, end))
            elif number == 15:
                self._sparse_tensor(value, end)
            elif number == 11 and depth == 0:
                inputs.append(self._value_info(value, end))
            elif number == 12 and depth == 0:
                self._summary.outputs.append(self._value_info(value, end))
        # Old exporters list initializers among the inputs.
        self._summary.inputs += [known for known in inputs if known.name not in initializers]

    def _training(self, start: int, stop: int) -> None:
        for number, wire, value, end in self._scan.fields(start, stop):
            if number in (1, 2) and wire == BYTES:
                self._graph(value, end, depth=1)

    def _function(self, start: int, stop: int) -> None:
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 7 and wire == BYTES:
                self._node(value, end, depth=0)
            elif number == 11 and wire == BYTES:
                self._attribute(value, end, depth=0)

    def _node(self, start: int, stop: int, *, depth: int) -> None:
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 5 and wire == BYTES:
                self._attribute(value, end, depth=depth)

    def _attribute(self, start: int, stop: int, *, depth: int) -> None:
        for number, wire, value, end in self._scan.fields(start, stop):
            if wire != BYTES:
                continue
            if number in (5, 10):
                self._tensor(value, end)
            elif number in (6, 11):
                self._graph(value, end, depth=depth + 1)
            elif number in (22, 23):
                self._sparse_tensor(value, end)

    def _sparse_tensor(self, start: int, stop: int) -> None:
        for number, wire, value, end in self._scan.fields(start, stop):
            if number in (1, 2) and wire == BYTES:
                self._tensor(value, end)

    def _tensor(self, start: int, stop: int) -> str:
        name, external = "", False
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 8 and wire == BYTES:
                name = self._short_text(value, end)
            elif (number == 13 and wire == BYTES) or (number == 14 and wire == VARINT and value == _EXTERNAL):
                external = True
        if external:
            self._summary.external_tensors.append(name or "(unnamed)")
        return name

    def _value_info(self, start: int, stop: int) -> GraphValue:
        name, dtype, shape = "", "unknown", None
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 1 and wire == BYTES:
                name = self._short_text(value, end)
            elif number == 2 and wire == BYTES:
                for kind, kind_wire, inner, inner_end in self._scan.fields(value, end):
                    if kind == 1 and kind_wire == BYTES:
                        dtype, shape = self._tensor_type(inner, inner_end)
        return GraphValue(name=name, dtype=dtype, shape=shape)

    def _tensor_type(self, start: int, stop: int) -> tuple[str, list[int | str | None] | None]:
        dtype, shape = "unknown", None
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 1 and wire == VARINT:
                dtype = _DTYPES.get(value, f"type {value}")
            elif number == 2 and wire == BYTES:
                shape = [
                    self._dimension(dim, dim_end)
                    for dim_number, dim_wire, dim, dim_end in self._scan.fields(value, end)
                    if dim_number == 1 and dim_wire == BYTES
                ]
        return dtype, shape

    def _dimension(self, start: int, stop: int) -> int | str | None:
        size: int | str | None = None
        for number, wire, value, end in self._scan.fields(start, stop):
            if number == 1 and wire == VARINT:
                size = value if value < 2**63 else value - 2**64
            elif number == 2 and wire == BYTES:
                size = self._short_text(value, end) or None
        return size

    def _short_text(self, start: int, stop: int) -> str:
        # Databases take no NUL in a text.
        return self._scan.text(start, min(stop, start + _MAX_TEXT_BYTES)).replace("\0", "\N{REPLACEMENT CHARACTER}")
