"""ONNX Runtime as the reference: what the outputs should be, on random inputs and on the user's samples."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tuner.errors import ModelError, WorkerError
from tuner.frontend.tensors import TensorSpec
from tuner.network_process import NetworkProcess, Sample

RANDOM_SAMPLES = 3
# A bundle carries them: a gibibyte of pictures is more than anybody checks with.
MAX_SAMPLES_BYTES = 1024**3


def random_samples(inputs: Sequence[TensorSpec], *, seed: int, count: int = RANDOM_SAMPLES) -> list[Sample]:
    """Seeded inputs: floats ~ N(0, 1), bytes over their whole range, other integers and booleans 0 or 1.

    Wider integers are mostly indices, masks and token types, for which 0 and 1 are always in range.
    """
    rng = np.random.default_rng(seed)
    return [{spec.name: _random(spec, rng) for spec in inputs} for _ in range(count)]


def load_samples(path: Path, inputs: Sequence[TensorSpec]) -> list[Sample]:
    """The user's ``.npz``: one array per input, its leading axis counting samples (or a single sample without it).

    Raises `ModelError` (``samples_invalid``) naming what does not fit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # No entry gives more than its directory says: what is read is bounded by it.
            unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if unpacked_bytes > MAX_SAMPLES_BYTES:
            raise _invalid(
                f"The samples take {unpacked_bytes / 1024**3:.1f} GiB unpacked; at most "
                f"{MAX_SAMPLES_BYTES // 1024**3} GiB are taken."
            )
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # zipfile and NumPy raise whatever a damaged file makes them stumble over
        raise _invalid("The samples are not an .npz file of plain arrays.") from error
    wanted = {spec.name for spec in inputs}
    if set(arrays) != wanted:
        raise _invalid(f"The samples hold {_names(arrays)}; the model's inputs are {_names(wanted)}.")
    stacked: dict[str, np.ndarray] = {}
    for spec in inputs:
        array = arrays[spec.name]
        if array.shape == spec.shape:
            array = array[np.newaxis]
        if array.shape[1:] != spec.shape or not len(array):
            shape = "x".join(map(str, spec.shape))
            raise _invalid(f"Samples of {spec.name!r} have shape {array.shape}; expected n x {shape}.")
        if not np.can_cast(array.dtype, spec.dtype, casting="same_kind"):
            raise _invalid(f"Samples of {spec.name!r} are {array.dtype}; the model takes {spec.dtype}.")
        stacked[spec.name] = array.astype(spec.dtype)
    counts = {len(array) for array in stacked.values()}
    if len(counts) != 1:
        raise _invalid(f"The inputs have different numbers of samples: {sorted(counts)}.")
    return [{name: array[index] for name, array in stacked.items()} for index in range(counts.pop())]


def reference_outputs(
    model: Path,
    samples: Sequence[Sample],
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    threads: int,
) -> list[dict[str, np.ndarray]]:
    """ONNX Runtime's outputs on every sample, computed from the uploaded file itself in a child process.

    Raises `ModelError` (``reference_failed``) when ONNX Runtime refuses the model.
    """
    try:
        with NetworkProcess(model, kind="onnxruntime", threads=threads, name="ONNX Runtime") as network:
            return network.run(samples, [spec.name for spec in inputs], [spec.name for spec in outputs])
    except WorkerError as error:
        raise ModelError(
            f"ONNX Runtime cannot run the model, so nothing can be verified: {error.message}",
            code="reference_failed",
            hint="Run the model with onnxruntime directly and fix what it reports.",
            details=error.details,
        ) from error


def _random(spec: TensorSpec, rng: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return rng.integers(bounds.min, bounds.max, spec.shape, dtype=dtype, endpoint=True)
    return rng.integers(0, 2, spec.shape).astype(dtype)


def _invalid(message: str) -> ModelError:
    return ModelError(
        message,
        code="samples_invalid",
        hint="Save them with numpy.savez(path, **{input_name: array_of_shape_n_x_input_shape}).",
    )


def _names(names: object) -> str:
    return ", ".join(sorted(names)) or "nothing"  # type: ignore[call-overload]
