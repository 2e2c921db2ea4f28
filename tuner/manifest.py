"""What a job writes into its bundle's manifest: everything that a reader needs to judge the module, in plain JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tuner.compare import Latency
from tuner.frontend.convert import ImportedModel
from tuner.request import TuneRequest
from tuner.roofline_kernels import describe_roofline
from tuner.targets import TargetSpec, tvm_version
from tuner.verify import NumericsReport


def describe(
    request: TuneRequest,
    model: ImportedModel,
    *,
    outcome: str,
    shipped: str,
    numerics: NumericsReport,
    checked_on: TargetSpec,
    latencies: Mapping[str, Latency],
    search: Mapping[str, object],
    functions: Mapping[str, object],
    memory: Mapping[str, object],
) -> dict[str, object]:
    """The manifest before `write_bundle` completes it. ``shipped`` says which build the module is (tuned, untuned),
    ``checked_on`` what its numerics were checked on, ``functions`` the work of each function."""
    measured = {name: latency.as_dict() for name, latency in latencies.items()}
    return {
        "model": {"name": request.model_name, "sha256": _sha256(request.model_path)},
        "target": request.target.as_dict(),
        "tvm_version": tvm_version(),
        "threads": request.target.threads,
        "inputs": [asdict(spec) for spec in model.inputs],
        "outputs": [asdict(spec) for spec in model.outputs],
        "outcome": outcome,
        "shipped": shipped,
        "module": request.target.module,
        "numerics": {**numerics.as_dict(), "checked_on": checked_on.name},
        "latency": measured.get(shipped),
        "baseline": measured.get("untuned"),
        "onnxruntime": measured.get("onnxruntime"),
        "preflight": model.preflight.as_dict(),
        "memory": dict(memory),
        "search": dict(search),
        "functions": dict(functions),
        "roofline": describe_roofline(request.target),
        "seed": request.seed,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
