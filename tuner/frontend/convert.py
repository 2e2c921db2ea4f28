"""ONNX → Relax: the TVM frontend, held to what the rest of the tuner relies on."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from tuner.errors import ModelError
from tuner.frontend.preflight import PreflightReport, prepare_model
from tuner.frontend.tensors import TensorSpec

_FAILED_OPERATOR = re.compile(r"Error converting operator (\w+)")


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """A network in Relax: ``main`` takes the inputs in order (constants folded in) and returns the outputs.

    One output is returned as itself, several as a tuple, in the model's order.
    """

    module: tvm.IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preflight: PreflightReport


def import_model(path: Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> ImportedModel:
    """Import an ONNX file; raises `ModelError` with a stable code for whatever is wrong with it.

    Codes: those of `load_model`, `bind_input_shapes` and `fold_constants`, ``unsupported_operators``,
    ``missing_dimensions``, and ``import_failed`` with ``details["operator"]`` when the frontend refuses an
    operator's attributes.
    """
    prepared = prepare_model(path, input_shapes or {})
    report = prepared.report
    module = _to_relax(prepared.model)
    module = relax.transform.FoldConstant()(module)
    _assert_signature(module, report)
    return ImportedModel(module=module, inputs=report.inputs, outputs=report.outputs, preflight=report)


def _to_relax(model: onnx.ModelProto) -> tvm.IRModule:
    printed = io.StringIO()
    try:
        # The frontend prints the name of the operator that failed and warns about every renamed input.
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return from_onnx(model, keep_params_in_input=False)
    except Exception as error:  # each converter raises what it likes, TVM's native errors among them
        named = _FAILED_OPERATOR.search(printed.getvalue())
        operator = named.group(1) if named else "unknown"
        reason = " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:400]
        print(printed.getvalue()[:2000], file=sys.stderr)
        raise ModelError(
            f"Operator {operator} could not be imported: {reason or type(error).__name__}.",
            code="import_failed",
            hint="The operator is known, but not with these attributes. Export the model with plainer ones.",
            details={"operator": operator, "reason": reason},
        ) from error


def _assert_signature(module: tvm.IRModule, report: PreflightReport) -> None:
    main = module["main"]
    taken = [_type(parameter.ty) for parameter in main.params]
    returned = main.ret_ty
    fields = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    for what, found, expected in (
        ("inputs", taken, report.inputs),
        ("outputs", [_type(field) for field in fields], report.outputs),
    ):
        wanted = [(spec.shape, spec.dtype) for spec in expected]
        if found != wanted:
            raise ModelError(
                f"The imported network's {what} are {found}, the model's are {wanted}.",
                code="import_failed",
                hint="This is a fault of the importer: please report it with the model's operators.",
                details={"operator": "unknown", "reason": f"{what} differ"},
            )


def _type(ty: relax.Type) -> tuple[tuple[int, ...], str] | None:
    shape = getattr(ty, "shape", None)
    if shape is None or not all(isinstance(size, tvm.tirx.IntImm) for size in shape):
        return None
    return tuple(int(size) for size in shape), str(ty.dtype)
