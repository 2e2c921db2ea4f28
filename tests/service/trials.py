"""Seeded records and workloads, without a database: what confined processes of tests make too."""

from __future__ import annotations

import json
import random

from tuner.records import FailureKind, Record, Workload

FINGERPRINT = "0123456789abcdef"


def workload(number: int) -> Workload:
    return Workload(
        key=f"workload-{number}",
        tvm_version="0.27.0",
        name=f"dense_{number}",
        module_json=json.dumps({"number": number, "padding": "x" * 2000}),
        flops=1e6 * number,
    )


def record(
    seed: int,
    *,
    latency_us: float | None = 100.0,
    failure: FailureKind | None = None,
    of: int = 1,
    target_fingerprint: str = FINGERPRINT,
    features: int = 16,
    features_version: int = 1,
    trace: str | None = None,
) -> Record:
    rng = random.Random(seed)
    return Record(
        workload=f"workload-{of}",
        target_fingerprint=target_fingerprint,
        variant="full",
        decisions=tuple(tuple(rng.randrange(64) for _ in range(4)) for _ in range(3)),
        trace=json.dumps(["trace", seed, "ü"]) if trace is None else trace,
        latency_us=None if failure else latency_us,
        spread_us=None if failure else 1.5,
        failure=failure,
        failure_message="it did not build" if failure else "",
        knobs={"tile": [4, seed], "unroll": 16},
        # Halves are exact in float32, so that what is read equals what was written.
        features=tuple(rng.randrange(1000) / 2 for _ in range(features)),
        features_version=features_version,
        cost_s=0.25,
    )
