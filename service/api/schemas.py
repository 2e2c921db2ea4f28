"""What the REST interface says: one pydantic model a noun. Units are in the names."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from service.access.principal import PROJECT_NAME
from service.access.scopes import AccessScope
from service.jobs.states import JobState

MAX_TRIALS = 1_000_000
MAX_TIME_LIMIT_S = 30 * 24 * 3600
MAX_TOKEN_LIFE_S = 10 * 365 * 24 * 3600

# Described as a list of two numbers: many tools do not know lists whose places differ.
Step = Annotated[
    tuple[int, float], WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
]
Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list; ``next_cursor`` is None on the last one."""

    items: list[Item]
    next_cursor: str | None = None


class ModelInput(BaseModel):
    """A graph input as the file names it; ``shape`` has an integer, a name or None (unknown) a dimension."""

    name: str
    dtype: str
    shape: list[int | str | None] | None = None


class ModelSchema(BaseModel):
    """An uploaded ONNX file. ``id`` is the SHA-256 of its bytes."""

    id: str
    name: str
    filename: str
    size_bytes: int
    producer: str = ""
    ir_version: int | None = None
    opset: int | None = None
    node_count: int = 0
    inputs: list[ModelInput] = []
    outputs: list[ModelInput] = []
    created_at: datetime
    job_count: int = 0


class SamplesSchema(BaseModel):
    """An uploaded ``.npz`` with one array per model input. ``id`` is the SHA-256 of its bytes."""

    id: str
    filename: str
    size_bytes: int
    created_at: datetime


class TargetSchema(BaseModel):
    """What code is generated for. ``host`` is the machine of the server.

    ``processor`` names what code is for, as LLVM or CUDA do.
    ``module`` is the file that a bundle has: ``module.so`` or ``module.dylib``, or ``module.tar`` with object files.
    ``linker`` is what makes it here (null: nothing does, or nothing has to). ``measurable`` tells whether a device here
    can measure it, ``checked_on`` for which target the code is built whose numerics are checked before a bundle is
    shipped: itself, or the host with the same schedules.
    """

    name: str
    description: str
    device: str
    tvm: dict[str, Any]
    triple: str
    threads: int
    features: list[str] = []
    vector_bits: int = 128
    cache_bytes: dict[str, int] = {}
    memory_bytes: int | None = None
    has_runtime: bool = True
    processor: str = "generic"
    fingerprint: str
    builtin: bool = True
    module: str = "module.so"
    linker: str | None = None
    measurable: bool = False
    checked_on: str = "host"


class TargetCreate(BaseModel):
    """A target of one's own; ``tvm`` is a TVM target object such as ``{"kind": "llvm", "mcpu": "x86-64-v3"}``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="what jobs call it")
    description: str = Field(default="", description="for people")
    device: str = Field(default="", description="the machine, for people; records belong to it")
    tvm: dict[str, Any] = Field(description="TVM's target object")
    triple: str = Field(pattern=r"^[A-Za-z0-9_.-]{3,80}$", description="what the linker is asked for")
    threads: int = Field(ge=1, le=1024, description="worker threads of the module")
    features: list[str] = Field(default=[], description="what the processor must have, by the names of `/proc/cpuinfo`")
    vector_bits: int = Field(default=128, ge=32, le=4096, description="width of the vectors that are drafted for")
    cache_bytes: dict[str, int] = Field(default={}, description="data caches of one core: `l1`, `l2`, `l3`")
    memory_bytes: int | None = Field(default=None, ge=1, description="how much the machine has")
    has_runtime: bool = Field(default=True, description="false where TVM's runtime has no wheel: object files then")


class DeviceSchema(BaseModel):
    """One machine that can measure code for a target: this one, or a board that has joined the tracker.

    ``state`` of this machine is ``idle`` or ``measuring``; boards are ``idle``, ``busy``, ``online`` (of several boards
    of a target some are busy) or ``lost``: no longer there, since ``last_seen``. ``address`` is where a board listens.
    """

    name: str
    description: str
    target: str
    state: str
    running_job_id: str | None = None
    address: str | None = None
    last_seen: datetime | None = None
    waiting_jobs: int = 0


class CheckRequest(BaseModel):
    """What to check a model for."""

    model_config = ConfigDict(extra="forbid")

    target: str = Field(default="host", description="the target's name")
    input_shapes: dict[str, list[Annotated[int, Field(ge=1)]]] = Field(
        default={}, description="the shape of each input that has named or unknown dimensions"
    )


class CheckReport(BaseModel):
    """The preflight's answer; its fields are those of the tuner's preflight report."""

    model_config = ConfigDict(extra="allow")

    model_id: str
    target: str


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


class LogLine(BaseModel):
    """One line of the job's log; ``id`` is its event's id."""

    id: int
    time: datetime
    level: str
    message: str


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


class EventSchema(BaseModel):
    """One event of a job, as the SSE stream sends it (``event: kind``, ``id: id``, ``data: data``)."""

    id: int
    kind: str
    data: dict[str, Any]
    created_at: datetime


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


class Health(BaseModel):
    status: str


class ReadyCheck(BaseModel):
    name: str
    ok: bool
    detail: str = ""


class Ready(BaseModel):
    status: str
    checks: list[ReadyCheck]


class WebhookCreate(BaseModel):
    """An http or https address that is told when a job has ended."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=8, max_length=2000, description="http or https, without a user name in it")


class WebhookSchema(BaseModel):
    """A webhook, and how many of its messages are waiting, were delivered, and were given up."""

    id: str
    url: str
    created_at: datetime
    pending: int = 0
    delivered: int = 0
    failed: int = 0


class WebhookCreated(WebhookSchema):
    """``secret`` is what messages are signed with. It is not shown again."""

    secret: str


class WebhookDeliverySchema(BaseModel):
    """A message to a webhook. ``status`` (HTTP) and ``error`` are of the last of its ``attempts``; a pending one is
    sent (again) at ``due_at``."""

    id: int
    event: str
    job_id: str | None
    state: str
    attempts: int
    due_at: datetime
    status: int | None
    error: str | None
    created_at: datetime
    ended_at: datetime | None


class TokenCreate(BaseModel):
    """A new access token; without `expires_in_s` it lives until it is revoked."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = Field(
        description="who or what it is for, such as ci"
    )
    scope: AccessScope = Field(description="each includes the ones before it: read, submit, admin")
    project: Annotated[str, StringConstraints(pattern=f"^{PROJECT_NAME}$")] | None = Field(
        default=None,
        description="whose models, jobs and records it sees; without one, what the token that makes it sees",
    )
    expires_in_s: float | None = Field(
        default=None, gt=0, le=MAX_TOKEN_LIFE_S, description="until it expires, ten years at most"
    )


class TokenSchema(BaseModel):
    """An access token. `kind` is `made`, `local` (of the data directory) or `bootstrap` (of the environment);
    `last_used_at` is right to a minute."""

    id: str
    name: str
    kind: str
    scope: AccessScope
    project: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class TokenCreated(TokenSchema):
    """`token` is what requests are made with. It is not shown again."""

    token: str


class SignInLink(BaseModel):
    """An address that signs one browser in, once, until `expires_at`."""

    url: str
    expires_at: datetime


class AuditEntrySchema(BaseModel):
    """A change that somebody asked for. `who` is the name of a token, `status` what it was answered; null for a command
    on the server's machine."""

    id: int
    at: datetime
    who: str
    token_id: str | None
    address: str
    method: str
    path: str
    status: int | None


class Retention(BaseModel):
    """After how many ``days`` what ended is deleted; None keeps everything."""

    days: int | None = Field(description="1 to 36500, or null to keep everything")


class CleanUp(BaseModel):
    """Delete now what ended more than ``days`` ago; with ``dry_run`` only say what that is."""

    days: int = Field(description="1 to 36500")
    dry_run: bool = Field(default=False, description="delete nothing, only say what would be")


class KeptSchema(BaseModel):
    """One kind of what is kept; ``size_bytes`` is None where it lies in the database."""

    name: str
    count: int
    size_bytes: int | None = None


class StorageSchema(BaseModel):
    """What is kept, the database's own bytes (None where it is a server's), and what is free beside it."""

    kept: list[KeptSchema]
    database_bytes: int
    free_bytes: int
    retention_days: int | None


class OutdatedSchema(BaseModel):
    """Something outdated; a job's ``size_bytes`` are those of its files."""

    id: str
    name: str
    size_bytes: int


class CleanUpReport(BaseModel):
    """What is outdated, and whether it was deleted."""

    days: int
    deleted: bool
    size_bytes: int
    jobs: list[OutdatedSchema]
    models: list[OutdatedSchema]
    samples: list[OutdatedSchema]
    cost_models: list[OutdatedSchema]
