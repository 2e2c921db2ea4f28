"""A job's tasks and their trials."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class TaskUse(BaseModel):
    """``count`` calls of a task: in every network, or in one that computes ``choice`` in this ``way``."""

    count: int
    choice: str | None = None
    way: str | None = None


class TaskSchema(BaseModel):
    """One distinct tunable PrimFunc of the job's model; ``share`` is its part of the estimated latency.

    ``weight`` is how often the network calls it. Where parts of the network can be computed in several ways, ``uses``
    says which ones need it, and ``way`` is set for a task that only they need; ``used`` is false while others are
    faster: then ``weight`` is how often it would be called.
    ``traffic_bytes`` are those of its inputs, weights and output, each moved once; ``percent_of_roofline`` is the least
    time that these or ``flops`` could take on the device ÷ ``best_us``, above 100 where they stay in a cache.
    ``untuned_us`` is its latency without a schedule.
    """

    key: str
    name: str
    workload: str = ""
    weight: int
    flops: float
    traffic_bytes: int | None = None
    tunable: bool
    trials: int = 0
    failures: int = 0
    best_us: float | None = None
    knobs: dict[str, Any] = {}
    share: float | None = None
    gflops: float | None = None
    percent_of_roofline: float | None = None
    untuned_us: float | None = None
    uses: list[TaskUse] = []
    way: str | None = None
    used: bool = True


class TrialSchema(BaseModel):
    """One candidate: either ``latency_us`` or ``failure`` is set."""

    number: int
    task: str
    latency_us: float | None
    failure: str | None = None
    failure_message: str = ""
    knobs: dict[str, Any] = {}
    task_best_us: float | None = None
    estimated_us: float | None = None
    created_at: datetime
