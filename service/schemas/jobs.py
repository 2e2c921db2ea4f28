"""Jobs: what is asked for, how far they are, what came of them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from service.jobs.states import JobState

MAX_TRIALS = 1_000_000


MAX_TIME_LIMIT_S = 30 * 24 * 3600


# Described as a list of two numbers: many tools do not know lists whose places differ.
Step = Annotated[
    tuple[int, float], WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
]


class Measure(StrEnum):
    DEVICE = "device"
    NONE = "none"


class JobCreate(BaseModel):
    """Tune this model for this target within this budget. Without trials and time limit: 512 trials."""

    model_config = ConfigDict(extra="forbid")

    model_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(description="id of the model")
    target: str = Field(default="host", description="the target's name")
    trials: int | None = Field(default=None, ge=1, le=MAX_TRIALS, description="the most candidates to measure")
    time_limit_s: float | None = Field(default=None, gt=0, le=MAX_TIME_LIMIT_S, description="the most seconds to take")
    memory_limit_bytes: int | None = Field(
        default=None, ge=1, le=2**62, description="the most that a run may allocate beside weights and inputs"
    )
    input_shapes: dict[str, list[Annotated[int, Field(ge=1, le=2**31)]]] = Field(
        default={}, description="the shape of each input that has named or unknown dimensions"
    )
    samples: str | None = Field(default=None, description="id of uploaded samples (POST /samples)")
    measure: Measure = Field(default=Measure.DEVICE, description="`none` builds without measuring")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="of every random choice")


class JobBudget(BaseModel):
    trials: int | None
    time_limit_s: float | None


class JobProgress(BaseModel):
    trials_done: int = 0
    trials_total: int | None = None
    fraction: float = 0.0
    eta_s: float | None = None


class JobBest(BaseModel):
    """The best network so far: ``measured`` end to end, or estimated as Σ weight × best over its tasks."""

    latency_us: float
    measured: bool
    estimated_us: float | None = None
    spread_us: float | None = None


class JobBaseline(BaseModel):
    """The untuned build, and ONNX Runtime beside it where that can run."""

    latency_us: float
    spread_us: float | None = None
    onnxruntime_us: float | None = None


class JobRoofline(BaseModel):
    """What the device does at best: fp32 multiply-adds of all threads, and copying what fits no cache, bytes read and
    written."""

    peak_gflops: float
    bandwidth_gb_s: float


class JobError(BaseModel):
    code: str
    message: str
    hint: str = ""
    details: dict[str, Any] | None = None


class JobResult(BaseModel):
    """The manifest's essentials of a succeeded job."""

    outcome: str
    tuned_us: float | None = None
    tuned_spread_us: float | None = None
    untuned_us: float | None = None
    onnxruntime_us: float | None = None
    max_abs_error: float | None = None
    max_rel_error: float | None = None


class JobSchema(BaseModel):
    """One job. ``state`` and ``stage`` are separate: a stage only exists while the job runs or where it ended.

    ``convergence`` is a coarse course of the search, (trial, estimated latency of the network in µs), at most 32 steps.
    ``submitted_by`` is the name of the token that it was started with.
    """

    id: str
    model_id: str
    model_name: str
    target: str
    target_fingerprint: str = ""
    state: JobState
    stage: str | None = None
    outcome: str | None = None
    queue_position: int | None = None
    waiting_for: str | None = None
    budget: JobBudget
    memory_limit_bytes: int | None = None
    input_shapes: dict[str, list[int]] = {}
    samples: str | None = None
    measure: str = "device"
    seed: int = 0
    attempts: int = 0
    submitted_by: str = ""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: JobProgress = JobProgress()
    best: JobBest | None = None
    baseline: JobBaseline | None = None
    convergence: list[Step] = []
    roofline: JobRoofline | None = None
    result: JobResult | None = None
    preflight: dict[str, Any] | None = None
    error: JobError | None = None
