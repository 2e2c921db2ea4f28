"""Where versions of a target's cost model are kept; free of XGBoost, so that the web process can list them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class HeldOutPoint:
    """One sample of a workload that was left out of training: what was measured of it, and what was predicted.

    Both are log2(best latency of the workload / latency): 0 for the workload's best, −1 for one twice as slow. Points
    of one ``workload`` belong together; workloads count from 0 within a version.
    """

    workload: int
    measured_log2: float
    predicted_log2: float


@dataclass(frozen=True, kw_only=True)
class StoredCostModel:
    """One version of a target's cost model.

    ``model`` is XGBoost's UBJSON, ``samples`` an ``.npz`` with ``features`` (n × d, float32), ``latency_us``
    (n, float64) and ``workloads`` (n, str) that it was trained on (never pickled), ``training_set_sha256``
    the hash of those bytes, ``rank_quality`` what was measured on held-out workloads, ``held_out`` a bounded sample of
    the points behind it.
    """

    target_fingerprint: str
    features_version: int
    model: bytes
    samples: bytes
    sample_count: int
    training_set_sha256: str
    rank_quality: dict[str, float] = field(default_factory=dict)
    held_out: tuple[HeldOutPoint, ...] = ()


class CostModelStore(Protocol):
    """Versions only grow; `load` returns the newest one of a fingerprint."""

    def load(self, target_fingerprint: str) -> StoredCostModel | None: ...

    def save(self, model: StoredCostModel) -> int: ...


class MemoryCostModelStore:
    """A `CostModelStore` in memory: for tests and for tuning without a service."""

    def __init__(self) -> None:
        self._versions: dict[str, list[StoredCostModel]] = {}

    def load(self, target_fingerprint: str) -> StoredCostModel | None:
        versions = self._versions.get(target_fingerprint, [])
        return versions[-1] if versions else None

    def save(self, model: StoredCostModel) -> int:
        versions = self._versions.setdefault(model.target_fingerprint, [])
        versions.append(model)
        return len(versions)
