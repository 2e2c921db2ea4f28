"""ONNX → Relax: the TVM frontend, held to what the rest of the tuner relies on."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from tuner.errors import ModelError
from tuner.frontend.faults import told_as_model_error
from tuner.frontend.preflight import PreflightReport, prepare_model
from tuner.frontend.tensors import TensorSpec

_FAILED_OPERATOR = re.compile(r"(?:Error converting operator|Got \d+ in) (\w+)")


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

    Codes: those of the gate, `load_model`, `bind_input_shapes` and `fold_constants`; ``unsupported_operators``;
    ``missing_dimensions``; ``dynamic_output`` for outputs whose shape depends on the data; ``import_failed`` with
    ``details["operator"]`` when the frontend refuses an operator's attributes.
    """
    prepared = prepare_model(path, input_shapes or {})
    with told_as_model_error("Importing the model"):
        module = _to_relax(prepared.model)
        module = relax.transform.FoldConstant()(module)
        report = _with_outputs(module, prepared.model, prepared.report)
    return ImportedModel(module=module, inputs=report.inputs, outputs=report.outputs, preflight=report)


def _to_relax(model: onnx.ModelProto) -> tvm.IRModule:
    printed = io.StringIO()
    try:
        # The frontend prints the name of the operator that failed and warns about every renamed input.
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return from_onnx(model, keep_params_in_input=False)
    except MemoryError:
        raise
    except Exception as error:  # each converter raises what it likes, TVM's native errors among them
        if "bad_alloc" in str(error):
            raise MemoryError(str(error)) from error
        named = _FAILED_OPERATOR.search(printed.getvalue() + str(error))
        operator = named.group(1) if named else "unknown"
        reason = " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:400]
        print(printed.getvalue()[:2000], file=sys.stderr)
        raise ModelError(
            f"Operator {operator} could not be imported: {reason or type(error).__name__}.",
            code="import_failed",
            hint="The operator is known, but not with these attributes. Export the model with plainer ones.",
            details={"operator": operator, "reason": reason},
        ) from error


def _with_outputs(module: tvm.IRModule, model: onnx.ModelProto, report: PreflightReport) -> PreflightReport:
    """The report with every output, as the network returns it; raises `ModelError` when it is not the model's."""
    main = module["main"]
    returned = main.ret_ty
    fields = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    names = [value.name for value in model.graph.output]
    specs = {name: _spec(name, field) for name, field in zip(names, fields, strict=True)}
    dynamic = [name for name, spec in specs.items() if spec is None]
    if dynamic:
        raise ModelError(
            f"The shape of {', '.join(map(repr, dynamic))} depends on the data, or cannot be inferred.",
            code="dynamic_output",
            hint="Cut the model before the operator whose shape depends on data (NonMaxSuppression, NonZero, …).",
            details={"outputs": dynamic},
        )
    outputs = tuple(spec for spec in specs.values() if spec is not None)
    inputs = tuple(_spec(spec.name, var.ty) for spec, var in zip(report.inputs, main.params, strict=True))
    wrong = [spec for spec in report.outputs if specs[spec.name] != spec]
    if inputs != report.inputs or wrong:
        raise ModelError(
            f"The imported network differs from the model in {[spec.name for spec in wrong] or 'its inputs'}.",
            code="import_failed",
            hint="This is a fault of the importer: please report it with the model's operators.",
            details={"operator": "unknown", "reason": "the signature differs"},
        )
    return replace(report, outputs=outputs)


def _spec(name: str, ty: relax.Type) -> TensorSpec | None:
    shape = getattr(ty, "shape", None)
    if shape is None or not all(isinstance(size, tvm.tirx.IntImm) for size in shape):
        return None
    return TensorSpec(name=name, shape=tuple(int(size) for size in shape), dtype=str(ty.dtype))
