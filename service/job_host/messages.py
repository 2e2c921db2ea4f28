"""What the confined half of a job may say, as schemas: whatever does not fit is no message of ours."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from service.records_exchange import RecordLine
from tuner.events import (
    BaselineMeasured,
    DriftMeasured,
    Event,
    Finished,
    Log,
    Preflight,
    Progress,
    RooflineMeasured,
    StageStarted,
    TaskRecalled,
    TasksExtracted,
    TrialMeasured,
    UntunedTaskMeasured,
)
from tuner.records import FailureKind

_MIB = 1024**2
_LOG_CHARACTERS = 8_000
_LARGEST = 1e18
_MOST_TASKS = 20_000
_KNOBS_BYTES = 256 * 1024
_MOST_LEVELS = 64
_MOST_EVENTS = 1_000  # at once: a round of trials has some tens
_KINDS: tuple[type[Event], ...] = (
    StageStarted,
    Log,
    Preflight,
    TasksExtracted,
    TaskRecalled,
    TrialMeasured,
    Progress,
    DriftMeasured,
    BaselineMeasured,
    RooflineMeasured,
    UntunedTaskMeasured,
    Finished,
)
_EVENTS = {kind.kind: TypeAdapter(kind) for kind in _KINDS}
_FIELDS = {kind.kind: {each.name for each in fields(kind)} for kind in _KINDS}
_COUNTS = frozenset({"number", "trials_done", "trials_total", "timings"})
_CHOICES = {
    "level": {"info", "warning", "error"},
    "outcome": {"improved", "no_improvement", "unmeasured"},
    "failure": {None, *FailureKind},
}

_Plain = TypeVar("_Plain")
Outcome = Literal["improved", "no_improvement", "unmeasured"]
Key = Annotated[str, Field(min_length=1, max_length=128)]
Fingerprint = Annotated[str, Field(min_length=1, max_length=64)]


def _require_shallow(value: _Plain) -> _Plain:
    """What is kept as it is must not be nested so deeply that it cannot be written again."""
    level: list[object] = [value]
    for _ in range(_MOST_LEVELS):
        inner = [each for one in level if isinstance(one, dict) for each in one.values()]
        level = inner + [each for one in level if isinstance(one, list | tuple) for each in one]
        if not level:
            return value
    raise ValueError("nested too deeply")


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SaidWorkload(_Said):
    key: Key
    tvm_version: str = Field(max_length=32)
    name: str = Field(max_length=255)
    module_json: str = Field(max_length=64 * _MIB)
    flops: float = Field(ge=0, le=_LARGEST)


class SaidRecord(RecordLine):
    """Like one that is imported, within bounds."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    decisions: list[list[Annotated[int, Field(ge=-(2**53), le=2**53)]]] = Field(max_length=10_000)
    trace: str = Field(max_length=4 * _MIB)
    failure_message: str = Field(max_length=64 * 1024)
    features: list[float] = Field(max_length=4096)
    features_version: int = Field(ge=0, lt=2**31)
    cost_s: float = Field(ge=0, le=_LARGEST)

    @field_validator("knobs")
    @classmethod
    def _small(cls, knobs: dict[str, Any]) -> dict[str, Any]:
        _require_shallow(knobs)
        if len(json.dumps(knobs)) > _KNOBS_BYTES:
            raise ValueError("too many knobs")
        return knobs


class SaidTensor(_Said):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    name: str = Field(max_length=4096)
    dtype: str = Field(max_length=64)
    shape: list[int | str | None] = Field(max_length=64)


class SaidReport(_Said):
    """What is known of a model before any search: pages show it."""

    operators: dict[Annotated[str, Field(max_length=256)], int] = Field(max_length=10_000)
    opset: int = Field(ge=0, lt=2**31)
    inputs: list[SaidTensor] = Field(max_length=10_000)
    outputs: list[SaidTensor] = Field(max_length=10_000)
    flops: float = Field(ge=0, le=_LARGEST)
    weights_bytes: int = Field(ge=0, le=2**62)
    peak_activation_bytes: int = Field(ge=0, le=2**62)
    seconds_per_100_trials: float = Field(ge=0, le=_LARGEST)
    least_memory_bytes: int | None = Field(ge=0, le=2**62)
    usual_memory_bytes: int | None = Field(ge=0, le=2**62)
    safe_memory_limit_bytes: int | None = Field(ge=0, le=2**62)


class AddWorkload(_Said):
    given: SaidWorkload


class AddRecords(_Said):
    records: list[SaidRecord] = Field(max_length=10_000)


class Seen(_Said):
    workload: Key
    target_fingerprint: Fingerprint


class Own(_Said):
    pass


class TrainingSet(_Said):
    target_fingerprint: Fingerprint
    features_version: int = Field(ge=0, lt=2**31)
    limit: int = Field(ge=0, le=1_000_000)


class LoadCostModel(_Said):
    target_fingerprint: Fingerprint


class SaidPoint(_Said):
    workload: int = Field(ge=0, lt=2**31)
    measured_log2: float = Field(ge=-_LARGEST, le=_LARGEST)
    predicted_log2: float = Field(ge=-_LARGEST, le=_LARGEST)


class SaidCostModel(_Said):
    """Its two byte strings come behind the message: the model and its training set."""

    target_fingerprint: Fingerprint
    features_version: int = Field(ge=0, lt=2**31)
    sample_count: int = Field(ge=0, lt=2**31)
    training_set_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rank_quality: dict[Annotated[str, Field(max_length=64)], float] = Field(max_length=100)
    held_out: list[SaidPoint] = Field(max_length=100_000)


class SaveCostModel(_Said):
    given: SaidCostModel


class SaidEvent(_Said):
    kind: str = Field(max_length=32)
    data: dict[str, Any]

    def event(self) -> Event:
        """Raises ValueError for what is no event of ours, or has numbers that cannot be."""
        if self.kind not in _EVENTS or set(self.data) != _FIELDS[self.kind]:
            raise ValueError(f"no event: {self.kind[:32]}")
        if self.kind == Log.kind:
            self.data["message"] = str(self.data["message"])[:_LOG_CHARACTERS]
        _require_shallow(self.data)
        for name, value in self.data.items():
            _require_possible(name, value)
        if self.kind == Preflight.kind:
            SaidReport.model_validate(self.data["report"])
        event: Event = _EVENTS[self.kind].validate_python(self.data)
        return event


class Emit(_Said):
    events: list[SaidEvent] = Field(min_length=1, max_length=_MOST_EVENTS)


class Succeed(_Said):
    outcome: Outcome
    schedules: Annotated[list[dict[str, Any]], AfterValidator(_require_shallow)] = Field(max_length=_MOST_TASKS)


class SaidError(_Said):
    code: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    message: str = Field(max_length=64 * 1024)
    hint: str = Field(max_length=64 * 1024)
    details: Annotated[dict[str, Any], AfterValidator(_require_shallow)] = {}


class Fail(_Said):
    kind: Literal["refused", "no_board", "no_space", "no_memory", "unexpected"]
    error: SaidError


def _require_possible(name: str, value: Any) -> None:
    """Of an event's own fields; those of what is in them are of any kind, and shown at most."""
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ValueError(f"{name} is none of {_CHOICES[name]}")
    if isinstance(value, bool):
        return
    if isinstance(value, int | float) and not 0 <= value <= (2**31 - 1 if name in _COUNTS else _LARGEST):
        raise ValueError(f"{name} is out of range")
    if name == "fraction" and not (isinstance(value, int | float) and value <= 1.001):
        raise ValueError("fraction is out of range")
    if name == "tasks" and len(value) > _MOST_TASKS:
        raise ValueError("too many tasks")
    if isinstance(value, str) and len(value) > _LOG_CHARACTERS:
        raise ValueError(f"{name} is too long")
