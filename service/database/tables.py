"""The tables. Hot columns are typed; traces, workloads and features are compressed or packed blobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.database.base import Base, ShownText, now

metadata = Base.metadata

# SQLite numbers rows by itself only for INTEGER primary keys; elsewhere these ids outgrow 32 bits.
_RowId = BigInteger().with_variant(Integer, "sqlite")
_SHA256 = String(64)
_ID = String(36)
_PROJECT = String(40)
# Records that a cost model learns from.
_LEARNED_FROM = text("features IS NOT NULL AND latency_us IS NOT NULL")


class OfProject:
    """What is seen in its own project only, and so is every row that refers to such a one (`service.database.wall`).

    The same content may be in several projects: what is named by its content is a row in each of them.
    """

    project: Mapped[str] = mapped_column(_PROJECT)


class Model(OfProject, Base):
    """An uploaded ONNX file; its blob has the same name as its id."""

    __tablename__ = "models"

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    id: Mapped[str] = mapped_column(_SHA256, primary_key=True)
    name: Mapped[str] = mapped_column(ShownText(200))
    filename: Mapped[str] = mapped_column(ShownText(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    producer: Mapped[str] = mapped_column(ShownText(200), default="")
    ir_version: Mapped[int | None]
    opset: Mapped[int | None]
    node_count: Mapped[int] = mapped_column(default=0)
    inputs: Mapped[list[Any]] = mapped_column(default=list)
    outputs: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)


class Samples(OfProject, Base):
    """An uploaded ``.npz`` of inputs; its blob has the same name as its id."""

    __tablename__ = "samples"

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    id: Mapped[str] = mapped_column(_SHA256, primary_key=True)
    filename: Mapped[str] = mapped_column(ShownText(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Target(OfProject, Base):
    """A target of one's own; the built-in ones (``host``) are detected and not stored."""

    __tablename__ = "targets"

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Job(OfProject, Base):
    """One job. ``pid`` and ``pid_started_at`` identify its process, also after a restart of the server.

    ``submitted_by`` is the name of the token that it was started with.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')", name="state"
        ),
        ForeignKeyConstraint(["project", "model_id"], ["models.project", "models.id"]),
        ForeignKeyConstraint(["project", "samples_id"], ["samples.project", "samples.id"]),
        Index(None, "state", "id"),
        Index(None, "project", "id"),
        Index(None, "project", "submitted_by", "started_at"),
    )

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    submitted_by: Mapped[str] = mapped_column(ShownText(100), default="")
    model_id: Mapped[str] = mapped_column(_SHA256, index=True)
    target: Mapped[str] = mapped_column(String(63), index=True)
    target_fingerprint: Mapped[str] = mapped_column(String(64))
    target_spec: Mapped[dict[str, Any]]
    trials: Mapped[int | None]
    time_limit_s: Mapped[float | None]
    memory_limit_bytes: Mapped[int | None] = mapped_column(BigInteger)
    input_shapes: Mapped[dict[str, Any]] = mapped_column(default=dict)
    samples_id: Mapped[str | None] = mapped_column(_SHA256)
    measure: Mapped[str] = mapped_column(String(16), default="device")
    seed: Mapped[int] = mapped_column(default=0)

    state: Mapped[str] = mapped_column(String(16), default="queued")
    stage: Mapped[str | None] = mapped_column(String(32))
    outcome: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    trials_done: Mapped[int] = mapped_column(default=0)
    trials_total: Mapped[int | None]
    fraction: Mapped[float] = mapped_column(default=0.0)
    eta_s: Mapped[float | None]
    best_us: Mapped[float | None]
    best_spread_us: Mapped[float | None]
    best_measured: Mapped[bool] = mapped_column(default=False)
    estimated_us: Mapped[float | None]
    # [trial, estimated_us] of improvements, thinned to 32 (service.stores.steps).
    convergence: Mapped[list[Any]] = mapped_column(default=list)
    baseline_us: Mapped[float | None]
    baseline_spread_us: Mapped[float | None]
    onnxruntime_us: Mapped[float | None]
    peak_gflops: Mapped[float | None]
    bandwidth_gb_s: Mapped[float | None]
    preflight: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    pid: Mapped[int | None]
    pid_started_at: Mapped[float | None]
    heartbeat_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    waiting_for: Mapped[str | None] = mapped_column(ShownText(300))
    attempts: Mapped[int] = mapped_column(default=0)
    barren_attempts: Mapped[int] = mapped_column(default=0)
    records_at_claim: Mapped[int] = mapped_column(default=0)
    crash: Mapped[str | None] = mapped_column(ShownText(64))


class Task(Base):
    """One distinct tunable PrimFunc of a job's model.

    ``uses`` is what the network calls it for: ``count``, and ``choice`` and ``way`` where it needs either this task or
    others (`tuner.search.alternatives`). ``traffic_bytes`` are those of its arguments, ``untuned_us`` is its latency
    without a schedule.
    """

    __tablename__ = "tasks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    position: Mapped[int] = mapped_column(default=0)
    name: Mapped[str] = mapped_column(ShownText(255))
    workload: Mapped[str] = mapped_column(String(128))
    uses: Mapped[list[Any]] = mapped_column(default=list)
    flops: Mapped[float]
    traffic_bytes: Mapped[int | None] = mapped_column(BigInteger)
    tunable: Mapped[bool] = mapped_column(default=True)
    best_us: Mapped[float | None]
    untuned_us: Mapped[float | None]
    knobs: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Workload(OfProject, Base):
    """The identity of a task across models; ``module`` is the zstd-compressed JSON of the PrimFunc."""

    __tablename__ = "workloads"

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    tvm_version: Mapped[str] = mapped_column(String(32), index=True)
    name: Mapped[str] = mapped_column(ShownText(255))
    flops: Mapped[float]
    module: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(default=now)


class TrialRecord(OfProject, Base):
    """A trial that is stored and reusable. It outlives its job: ``job_id`` is then NULL."""

    __tablename__ = "records"
    __table_args__ = (
        CheckConstraint("(latency_us IS NULL) <> (failure IS NULL)", name="latency_or_failure"),
        UniqueConstraint("job_id", "number"),
        ForeignKeyConstraint(["project", "workload"], ["workloads.project", "workloads.key"]),
        # Not the project first: SQLite would think no less of it than of a job's id, and read all that the project has.
        Index(None, "workload", "target_fingerprint", "project", "latency_us"),
        Index(
            "ix_records_learned_from",
            "target_fingerprint",
            "features_version",
            "workload",
            "project",
            "id",
            sqlite_where=_LEARNED_FROM,
            postgresql_where=_LEARNED_FROM,
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    number: Mapped[int | None]
    task: Mapped[str] = mapped_column(String(128), default="")
    workload: Mapped[str] = mapped_column(String(128))
    target_fingerprint: Mapped[str] = mapped_column(String(64))
    variant: Mapped[str] = mapped_column(String(255))
    decisions: Mapped[list[Any]]
    trace: Mapped[bytes]
    trace_sha256: Mapped[str] = mapped_column(_SHA256)
    latency_us: Mapped[float | None]
    spread_us: Mapped[float | None]
    failure: Mapped[str | None] = mapped_column(String(32))
    failure_message: Mapped[str] = mapped_column(ShownText, default="")
    knobs: Mapped[dict[str, Any]] = mapped_column(default=dict)
    features: Mapped[bytes | None]
    features_version: Mapped[int] = mapped_column(default=0)
    cost_s: Mapped[float] = mapped_column(default=0.0)
    task_best_us: Mapped[float | None]
    estimated_us: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class RecordCount(OfProject, Base):
    """How many records there are of a target and workload (`service.stores.adding`)."""

    __tablename__ = "record_counts"
    __table_args__ = (ForeignKeyConstraint(["project", "workload"], ["workloads.project", "workloads.key"]),)

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    target_fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    workload: Mapped[str] = mapped_column(String(128), primary_key=True)
    measured: Mapped[int]
    failed: Mapped[int]


class CostModel(OfProject, Base):
    """One version of a target's cost model; the model and its training set lie in the blob store."""

    __tablename__ = "cost_models"

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    target_fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    features_version: Mapped[int]
    model_sha256: Mapped[str] = mapped_column(_SHA256)
    samples_sha256: Mapped[str] = mapped_column(_SHA256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sample_count: Mapped[int]
    training_set_sha256: Mapped[str] = mapped_column(_SHA256)
    rank_quality: Mapped[dict[str, Any]] = mapped_column(default=dict)
    # [workload, measured, predicted] a point, as in tuner.cost_model_store; NULL in versions from before revision 0002.
    held_out: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True), default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Artifact(Base):
    """One downloadable file that a job produced; ``sha256`` names its blob."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("job_id", "filename"),)

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(_SHA256, index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class JobEvent(Base):
    """One event of a job. Ids grow over all jobs and are never used twice: they are the SSE ids."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class IdempotencyKey(OfProject, Base):
    """A creation that a client may repeat: the same key answers with the same job."""

    __tablename__ = "idempotency_keys"

    project: Mapped[str] = mapped_column(_PROJECT, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(_SHA256)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)


class Webhook(OfProject, Base):
    """An address that is told when a job has ended; what it is sent is signed with ``secret``."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    secret: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


class WebhookDelivery(Base):
    """One message to a webhook: ``status`` and ``error`` are of the last attempt, ``due_at`` that of the next."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        Index(None, "state", "due_at"),
        Index(None, "webhook_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(default=now)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(ShownText(300))
    created_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]


class Preference(Base):
    """One thing that people set for the whole installation."""

    __tablename__ = "preferences"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)


class AccessToken(Base):
    """A token that requests are made with; of its secret there is the SHA-256 (`service.access.tokens`).

    It sees ``project`` and nothing of another; itself it is no project's, since who makes tokens makes them for all.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint("kind IN ('made', 'local', 'bootstrap')", name="kind"),
        CheckConstraint("scope IN ('read', 'submit', 'admin')", name="scope"),
    )

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    name: Mapped[str] = mapped_column(ShownText(100))
    kind: Mapped[str] = mapped_column(String(16))
    scope: Mapped[str] = mapped_column(String(16))
    project: Mapped[str] = mapped_column(_PROJECT)
    secret_sha256: Mapped[str] = mapped_column(_SHA256, unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class BrowserSession(Base):
    """A browser that signed in with a token, by the SHA-256 of what its cookie holds."""

    __tablename__ = "sessions"

    id_sha256: Mapped[str] = mapped_column(_SHA256, primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]


class AuditEntry(Base):
    """A change that somebody asked for. It outlives its token; ``status`` is None for a command on this machine."""

    __tablename__ = "audit_entries"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now)
    who: Mapped[str] = mapped_column(ShownText(100))
    token_id: Mapped[str | None] = mapped_column(_ID)
    address: Mapped[str] = mapped_column(ShownText(64))
    method: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(ShownText(500))
    status: Mapped[int | None]
