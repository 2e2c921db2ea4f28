"""Records and workloads: what was measured, and where the search keeps it.

A *workload* is the identity of a task across models; a *record* is a trial that is stored and reusable by
later jobs on the same target. Storage comes in through the `RecordStore` protocol, so that the search knows
no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class FailureKind(StrEnum):
    """Why a trial has no latency. A candidate's failure is data, never an exception."""

    BUILD_ERROR = "build_error"
    BUILD_TIMEOUT = "build_timeout"
    RUN_ERROR = "run_error"
    RUN_TIMEOUT = "run_timeout"
    WRONG_RESULT = "wrong_result"
    DEVICE_LOST = "device_lost"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A distinct tunable PrimFunc.

    ``key`` is the SHA-256 over TVM's version and the structural hash of the normalized function;
    ``module_json`` is the function itself (``tvm.ir.save_json``), so that it can be rebuilt and compared
    structurally: the hash alone is not trusted across environments.
    """

    key: str
    tvm_version: str
    name: str
    module_json: str
    flops: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial: a schedule of a workload for a target, with its latency or the kind of its failure.

    Exactly one of ``latency_us`` and ``failure`` is set. ``variant`` names the design space (what is fixed
    when the PrimFunc is built), ``trace`` is TVM's trace as JSON, ``decisions`` the plain integers of its
    sampling instructions in order, ``knobs`` the same readable, ``features`` the cost model's input
    (float32, the layout named by ``features_version``).
    """

    workload: str
    target_fingerprint: str
    variant: str
    decisions: tuple[tuple[int, ...], ...]
    trace: str
    latency_us: float | None = None
    spread_us: float | None = None
    failure: FailureKind | None = None
    failure_message: str = ""
    knobs: dict[str, object] = field(default_factory=dict)
    features: tuple[float, ...] = ()
    features_version: int = 0
    cost_s: float = 0.0

    def __post_init__(self) -> None:
        if (self.latency_us is None) == (self.failure is None):
            raise ValueError("a record has either a latency or a failure")


def failed_traces(records: Iterable[Record]) -> set[str]:
    """The schedules with any record of a failure: one that was timed may have been found wrong later."""
    return {record.trace for record in records if record.failure is not None}


class RecordStore(Protocol):
    """Where workloads and records live. One contract suite runs over every implementation.

    Every method is synchronous; what `add` was given is durable when it returns. Lists are ordered as said
    and limited by the caller. Records of another target fingerprint are never returned.
    """

    def add_workload(self, workload: Workload) -> None:
        """Store a workload; storing a known key again changes nothing."""

    def add(self, records: Sequence[Record]) -> None:
        """Append records of workloads that are already stored, all of them or none."""

    def seen(self, workload: str, *, target_fingerprint: str) -> list[Record]:
        """Every record of a workload, failures included, oldest first, from all jobs."""

    def own(self) -> list[Record]:
        """The records that this job (the store's owner) added itself, oldest first: what a resumed job has."""

    def training_set(self, *, target_fingerprint: str, features_version: int, limit: int) -> list[Record]:
        """Successful records with features of that version, at most ``limit``: as many of every workload as there are,
        the newest of each."""


class MemoryRecordStore:
    """A `RecordStore` in memory: for tests and for tuning without a service."""

    def __init__(self, earlier: Iterable[Record] = ()) -> None:
        self.workloads: dict[str, Workload] = {}
        self._earlier = list(earlier)
        self._own: list[Record] = []

    def add_workload(self, workload: Workload) -> None:
        self.workloads.setdefault(workload.key, workload)

    def add(self, records: Sequence[Record]) -> None:
        unknown = {record.workload for record in records} - self.workloads.keys()
        if unknown:
            raise KeyError(f"records of workloads that were not stored: {sorted(unknown)}")
        self._own.extend(records)

    def seen(self, workload: str, *, target_fingerprint: str) -> list[Record]:
        return [
            record
            for record in [*self._earlier, *self._own]
            if record.workload == workload and record.target_fingerprint == target_fingerprint
        ]

    def own(self) -> list[Record]:
        return list(self._own)

    def training_set(self, *, target_fingerprint: str, features_version: int, limit: int) -> list[Record]:
        usable = [
            record
            for record in [*self._earlier, *self._own]
            if record.target_fingerprint == target_fingerprint
            and record.features_version == features_version
            and record.features
            and record.latency_us
        ]
        newest_first = usable[::-1]
        ages = {id(record): age for of_one in _by_workload(newest_first) for age, record in enumerate(of_one)}
        return sorted(newest_first, key=lambda record: ages[id(record)])[:limit]


def _by_workload(records: Sequence[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.workload, []).append(record)
    return list(groups.values())
