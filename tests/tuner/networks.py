"""Compiled networks for the tests: imported, built by TVM's defaults and linked, as the untuned build is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import tvm

from tests import models
from tuner.frontend.convert import ImportedModel, import_model
from tuner.link import export_module, host_triple
from tuner.network_process import Sample
from tuner.reference import random_samples, reference_outputs
from tuner.roofline_kernels import with_roofline
from tuner.targets import host_target


@dataclass(frozen=True, kw_only=True)
class Network:
    """A model file, its module, and inputs with ONNX Runtime's outputs."""

    onnx_path: Path
    module: Path
    imported: ImportedModel
    samples: list[Sample]
    reference: list[dict[str, object]]


def compile_model(model: onnx.ModelProto, folder: Path, *, name: str = "network") -> Network:
    """Everything of a model, in that folder."""
    path = models.write(model, folder / f"{name}.onnx")
    imported = import_model(path)
    module = folder / f"{name}.so"
    compile_module(imported, module)
    samples = random_samples(imported.inputs, seed=0)
    reference = reference_outputs(path, samples, inputs=imported.inputs, outputs=imported.outputs, threads=1)
    return Network(onnx_path=path, module=module, imported=imported, samples=samples, reference=reference)


def compile_module(imported: ImportedModel, module: Path) -> None:
    network = with_roofline(imported.module, host_target())
    executable = tvm.compile(network, target=tvm.target.Target(host_target().tvm))
    export_module(executable, module, triple=host_triple())
