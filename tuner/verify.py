"""Numerics: a compiled network's outputs against ONNX Runtime's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tuner.board_process import BoardProcess
from tuner.errors import VerificationError
from tuner.frontend.tensors import TensorSpec
from tuner.network_process import NetworkProcess, Sample

FP32_TOLERANCE = 1e-4

# Looser tolerances, by the type of the output, with the reason that goes into the manifest.
_BY_DTYPE: Mapping[str, tuple[float, str]] = {
    "float16": (2e-3, "half precision keeps 11 bits: two units in the last place of the largest value"),
}


@dataclass(frozen=True, kw_only=True)
class OutputNumerics:
    """One output, the worst of all samples.

    ``max_abs_error`` is max |y − r|, ``max_rel_error`` that over max |r| of the same sample. Integers and booleans
    must be equal (tolerance 0). ``problem`` says what else is wrong (shape, type, NaN), and is empty otherwise.
    """

    name: str
    max_abs_error: float
    max_rel_error: float
    tolerance: float
    tolerance_reason: str
    passed: bool
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class NumericsReport:
    """What the manifest says about numerics."""

    samples: int
    outputs: tuple[OutputNumerics, ...]

    @property
    def passed(self) -> bool:
        return bool(self.outputs) and self.samples > 0 and all(output.passed for output in self.outputs)

    @property
    def max_abs_error(self) -> float:
        return max(output.max_abs_error for output in self.outputs)

    @property
    def max_rel_error(self) -> float:
        return max(output.max_rel_error for output in self.outputs)

    def as_dict(self) -> dict[str, object]:
        return {
            "reference": "onnxruntime",
            "samples": self.samples,
            "passed": self.passed,
            "max_abs_error": _json_number(self.max_abs_error),
            "max_rel_error": _json_number(self.max_rel_error),
            "outputs": [
                asdict(output)
                | {
                    "max_abs_error": _json_number(output.max_abs_error),
                    "max_rel_error": _json_number(output.max_rel_error),
                }
                for output in self.outputs
            ],
        }

    def require(self) -> None:
        """Raise `VerificationError` unless everything passed."""
        wrong = [output for output in self.outputs if not output.passed]
        if not self.passed:
            shown = "; ".join(
                f"{output.name}: " + (output.problem or f"{output.max_rel_error:.2e} > {output.tolerance:.0e}")
                for output in wrong
            )
            raise VerificationError(
                f"The compiled network's outputs differ from ONNX Runtime's: {shown or 'nothing was compared'}.",
                details={"numerics": self.as_dict()},
            )


def verify_module(
    module: Path,
    samples: Sequence[Sample],
    reference: Sequence[Sample],
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    threads: int,
    board: BoardProcess | None = None,
) -> NumericsReport:
    """Run a compiled module on the samples, in a child process or on a board, and compare. Raises `WorkerError` on a
    crash."""
    with board.open(module) if board else NetworkProcess(module, kind="tvm", threads=threads) as network:
        ours = network.run(samples, [spec.name for spec in inputs], [spec.name for spec in outputs])
    return compare_outputs(ours, reference, outputs=outputs)


def compare_outputs(
    ours: Sequence[Sample], reference: Sequence[Sample], *, outputs: Sequence[TensorSpec]
) -> NumericsReport:
    """Compare outputs sample by sample; both sequences are in the same order."""
    if len(ours) != len(reference):
        raise ValueError(f"{len(ours)} results for {len(reference)} references")
    reports = []
    for spec in outputs:
        worst_abs = worst_rel = 0.0
        problem = ""
        for mine, theirs in zip(ours, reference, strict=True):
            absolute, relative, found = _difference(mine[spec.name], theirs[spec.name])
            worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
            problem = problem or found
        tolerance, reason = _tolerance(spec.dtype)
        passed = not problem and (worst_rel <= tolerance if tolerance else worst_abs == 0)
        reports.append(
            OutputNumerics(
                name=spec.name,
                max_abs_error=worst_abs,
                max_rel_error=worst_rel,
                tolerance=tolerance,
                tolerance_reason=reason,
                passed=passed,
                problem=problem,
            )
        )
    return NumericsReport(samples=len(ours), outputs=tuple(reports))


def _difference(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float, str]:
    """Largest absolute error, the same over the reference's largest value, and what cannot be compared at all."""
    infinite = float("inf")
    if mine.shape != theirs.shape:
        return infinite, infinite, f"shape {mine.shape} instead of {theirs.shape}"
    if mine.dtype != theirs.dtype:
        return infinite, infinite, f"type {mine.dtype} instead of {theirs.dtype}"
    if not mine.size:
        return 0.0, 0.0, ""
    if mine.dtype.kind in "biu":
        wrong = mine != theirs
        if not wrong.any():
            return 0.0, 0.0, ""
        # Python's integers: 64-bit differences overflow NumPy's.
        absolute = float(max(abs(int(a) - int(b)) for a, b in zip(mine[wrong], theirs[wrong], strict=True)))
        return absolute, absolute / max(float(np.abs(theirs.astype(np.float64)).max()), 1.0), ""
    if not np.isfinite(theirs).all():
        return infinite, infinite, "the reference holds NaN or infinity, so nothing can be said"
    if not np.isfinite(mine).all():
        return infinite, infinite, "NaN or infinity where the reference is finite"
    absolute = float(np.abs(mine.astype(np.float64) - theirs.astype(np.float64)).max())
    scale = float(np.abs(theirs.astype(np.float64)).max())
    return absolute, absolute / scale if scale else (0.0 if absolute == 0 else infinite), ""


def _tolerance(dtype: str) -> tuple[float, str]:
    if np.dtype(dtype).kind in "biu":
        return 0.0, "integers must be equal"
    return _BY_DTYPE.get(dtype, (FP32_TOLERANCE, "the tolerance of fp32 networks"))


def _json_number(value: float) -> float | None:
    """JSON has no infinity; what could not be compared has no error figure."""
    return value if np.isfinite(value) else None
