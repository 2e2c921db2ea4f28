"""Cost models, and the records that they learn from."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class CostModelSchema(BaseModel):
    """One version of a target's cost model, with its rank quality on held-out workloads."""

    target: str | None = None
    target_fingerprint: str
    version: int
    features_version: int
    sample_count: int
    training_set_sha256: str
    rank_quality: dict[str, float]
    size_bytes: int
    created_at: datetime


class HeldOutPointSchema(BaseModel):
    """A schedule of a workload that the model was not trained on. Both figures are log2(best latency of the workload ÷
    latency): 0 for the workload's best, −1 for a schedule twice as slow."""

    workload: int = Field(description="points of one workload belong together; counts from 0")
    measured_log2: float
    predicted_log2: float


class CostModelDetail(CostModelSchema):
    """The newest version with a sample of its held-out points, and all versions with their quality, newest first."""

    versions: list[CostModelSchema] = []
    held_out: list[HeldOutPointSchema] = Field(
        default=[], description="at most 400 points of the newest version, spread over the workloads"
    )


class RecordsImported(BaseModel):
    workloads: int
    records: int
    skipped: int = Field(description="records that were here already")
