"""Versions of this machine's cost model to store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tuner.cost_model_store import HeldOutPoint, StoredCostModel
from tuner.targets import host_target

FINGERPRINT = host_target().fingerprint
QUALITY = {"pairwise_accuracy": 0.9, "top_1": 0.8, "top_5": 0.95}
POINTS = (
    HeldOutPoint(workload=0, measured_log2=0.0, predicted_log2=0.125),
    HeldOutPoint(workload=1, measured_log2=-2.5, predicted_log2=-1.75),
)


def stored(content: bytes, *, samples: int, **changes: Any) -> StoredCostModel:
    """A version whose model is these bytes; ``changes`` are other fields."""
    version = StoredCostModel(
        target_fingerprint=FINGERPRINT,
        features_version=1,
        model=content,
        samples=b"npz",
        sample_count=samples,
        training_set_sha256="ab" * 32,
        rank_quality=QUALITY,
    )
    return replace(version, **changes)
