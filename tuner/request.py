"""What a job asks of the tuner, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.measure.build_workers import BuildHost
from tuner.measure.tracker import Tracker
from tuner.targets import TargetSpec

DEFAULT_TRIALS = 512


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to search: trials, seconds of tuning, or both (whichever ends first)."""

    trials: int | None = DEFAULT_TRIALS
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.trials is None and self.time_limit_s is None:
            raise ValueError("a budget needs trials, a time limit, or both")
        if self.trials is not None and self.trials <= 0:
            raise ValueError("trials must be positive")
        if self.time_limit_s is not None and self.time_limit_s <= 0:
            raise ValueError("the time limit must be positive")


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """One job: tune this model for this target within this budget.

    ``samples`` is an optional ``.npz`` with one array per input (leading axis: samples). ``work_dir`` is
    owned by the job: everything it writes before the bundle is complete lies there. ``fleet`` is the tracker that knows
    the boards of the target, by its name as their key; without one this machine measures. ``build_hosts`` build beside
    this machine. Without ``windows`` no chain
    is computed by sliding windows: for comparisons.
    """

    model_path: Path
    model_name: str
    target: TargetSpec
    work_dir: Path
    budget: Budget = field(default_factory=Budget)
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    samples: Path | None = None
    measure: str = "device"
    fleet: Tracker | None = None
    build_hosts: tuple[BuildHost, ...] = ()
    memory_limit_bytes: int | None = None
    windows: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """``outcome`` is improved, no_improvement or unmeasured; ``bundle`` the finished archive; ``schedules`` what people
    look at of the tasks' schedules (`tuner.shown_schedules`)."""

    outcome: str
    bundle: Path
    manifest: dict[str, object]
    schedules: list[dict[str, Any]] = field(default_factory=list)
