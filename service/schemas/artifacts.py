"""What a job leaves: files, and the front of memory against latency."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class SigningKeySchema(BaseModel):
    """What bundles of this installation are signed with. ``public_key`` is 32 bytes in Base64, ``fingerprint`` the
    start of their SHA-256."""

    algorithm: str
    public_key: str
    fingerprint: str


class ArtifactSchema(BaseModel):
    """One downloadable file that a job produced: ``GET /artifacts/{id}/download``."""

    id: str
    job_id: str
    kind: str
    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: datetime
    download_url: str


class FrontPoint(BaseModel):
    """One way of building the model: what a run allocates (planned, and measured), and its latency: measured of builds,
    else estimated as Σ calls × best over its tasks.

    ``ways`` names the parts of the network that are not computed in the usual way.
    """

    name: str
    latency_us: float | None
    spread_us: float | None = None
    estimated_us: float | None = None
    peak_bytes: int | None = None
    measured_peak_bytes: int | None = None
    ways: dict[str, str] = {}
    shipped: bool = False


class Front(BaseModel):
    """Memory against latency: the builds that this job measured, then the Pareto front of all ways of building the
    network, least memory first, estimated from measured schedules."""

    job_id: str
    memory_limit_bytes: int | None = None
    points: list[FrontPoint]
