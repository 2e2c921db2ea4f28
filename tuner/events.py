"""What a running job tells the outside: small typed events, JSON-ready, in the order in which they happen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from tuner.search.alternatives import Use


class Stage(StrEnum):
    """The steps of a job, in order; DESIGN's ``stage``."""

    IMPORT = "import"
    PARTITION = "partition"
    EXTRACT = "extract"
    TUNE = "tune"
    BUILD = "build"
    VERIFY = "verify"
    BENCHMARK = "benchmark"
    PACKAGE = "package"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base: ``kind`` names the event, `data` is its JSON object."""

    kind: ClassVar[str]

    def data(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    kind: ClassVar[str] = "stage"
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class Log(Event):
    """One line for the job's log; ``level`` is info, warning or error."""

    kind: ClassVar[str] = "log"
    message: str
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Preflight(Event):
    """What is known of the model before any search; the answer of ``check`` has the same fields."""

    kind: ClassVar[str] = "preflight"
    report: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """One task as the tasks table shows it.

    ``uses`` say how often the network calls it, and for which of its alternatives (`tuner.search.alternatives`).
    ``traffic_bytes`` are those of all of its arguments, each read or written once: what no schedule of it can do
    without; None where shapes are not known. ``tunable`` is False for symbolic tasks and tasks without a design space.
    """

    key: str
    name: str
    workload: str
    uses: tuple[Use, ...]
    flops: float
    traffic_bytes: int | None = None
    tunable: bool = True


@dataclass(frozen=True, kw_only=True)
class TasksExtracted(Event):
    kind: ClassVar[str] = "tasks"
    tasks: tuple[TaskSummary, ...]


@dataclass(frozen=True, kw_only=True)
class TaskRecalled(Event):
    """Records of earlier jobs, or of this job's earlier attempt, already have a best for this task."""

    kind: ClassVar[str] = "recall"
    task: str
    best_us: float
    knobs: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrialMeasured(Event):
    """One trial is done (``number`` counts from 1 over the whole job).

    ``task_best_us`` is the best of its task so far, ``estimated_us`` the whole network's latency if built
    now (Σ calls × best over tasks), or None while some task has no measurement yet.
    """

    kind: ClassVar[str] = "trial"
    number: int
    task: str
    latency_us: float | None
    failure: str | None
    task_best_us: float | None
    estimated_us: float | None
    knobs: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """Sent at the start of tuning (records of earlier jobs counted), after every batch, and where a later stage begins.

    The estimate is there from the first one on: a second job's first Progress shows what the first job found.
    ``fraction`` is of the search's budget; ``eta_s`` counts what comes after the search too, as far as it is known.
    """

    kind: ClassVar[str] = "progress"
    trials_done: int
    trials_total: int | None
    fraction: float
    eta_s: float | None
    estimated_us: float | None


@dataclass(frozen=True, kw_only=True)
class DriftMeasured(Event):
    """How steady the machine is, about twice a minute while it searches: one kernel of the job, timed again and again.

    ``latency_us`` is its latest timing, ``drift`` its slowest ÷ its fastest so far, ``noise`` by how much two timings
    side by side differ, as a share, ``timings`` how many there were.
    """

    kind: ClassVar[str] = "drift"
    latency_us: float
    drift: float
    noise: float
    timings: int


@dataclass(frozen=True, kw_only=True)
class BaselineMeasured(Event):
    """The untuned build's end-to-end latency, and ONNX Runtime's where it can run (else None)."""

    kind: ClassVar[str] = "baseline"
    latency_us: float
    spread_us: float
    onnxruntime_us: float | None


@dataclass(frozen=True, kw_only=True)
class RooflineMeasured(Event):
    """What the device does at best (`tuner.roofline`)."""

    kind: ClassVar[str] = "roofline"
    peak_gflops: float
    bandwidth_gb_s: float


@dataclass(frozen=True, kw_only=True)
class UntunedTaskMeasured(Event):
    """A task's latency without a schedule: the same function as TVM's own default build would leave it."""

    kind: ClassVar[str] = "untuned"
    task: str
    latency_us: float


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The last event of a successful job: the manifest's essentials."""

    kind: ClassVar[str] = "result"
    outcome: str
    tuned_us: float | None
    tuned_spread_us: float | None
    untuned_us: float | None
    onnxruntime_us: float | None
    max_abs_error: float
    max_rel_error: float


class EventSink(Protocol):
    """Takes events, in their order; must not raise for a slow reader. Durable when it returns where the sink is a
    database, all of them or none."""

    def emit(self, *events: Event) -> None: ...


class ListSink:
    """Keeps events in a list: for tests and library use."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, *events: Event) -> None:
        self.events.extend(events)
