"""What is sent to builders and runners, and what comes back. Plain data: no TVM, so that tests can make them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuner.records import FailureKind

Decisions = tuple[tuple[int, ...], ...]


_library_numbers = itertools.count()


def new_library(directory: Path) -> Path:
    """A path for a library that no runner has seen: loading a second file under a known path gives the first again."""
    return directory / f"candidate-{next(_library_numbers)}.so"


@dataclass(frozen=True, kw_only=True)
class ArgumentSpec:
    """Shape and NumPy dtype of one argument of a built function, and whether it is a constant of the network."""

    shape: tuple[int, ...]
    dtype: str
    is_weight: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """A task as a builder needs it: ``key`` names it, ``module_json`` is its module (``tvm.ir.save_json``).

    ``network_weight_bytes`` are the constant weights of the network that its candidates are timed for.
    """

    key: str
    module_json: str
    network_weight_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """Build one candidate of ``task`` into the shared library ``output``, or into that of another job of its batch.

    ``trace_json`` None builds the function unscheduled. With ``repacked_weights`` the layout-rewritten buffers
    become arguments in their new layout (what a candidate is timed with); without, the signature stays the
    function's own and the rewrite happens inside (what a winner is checked with). ``gene_instructions`` are the
    trace's sampling instructions whose decisions are read back. ``quick`` generates code in 60 % of the time: good
    enough to tell fast schedules from slow ones, while what is shipped, and what is checked, takes every pass.
    """

    task: TaskSource
    trace_json: str | None
    output: Path
    gene_instructions: tuple[int, ...] = ()
    repacked_weights: bool = True
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A candidate that cannot be measured: data, never an exception."""

    kind: FailureKind
    message: str
    cost_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Built:
    """A built candidate: the function ``symbol`` of a library that it may share with others of its batch.

    ``decisions`` are those that the replay really took; ``network_weight_bytes`` are the task's (`TaskSource`).
    """

    library: Path
    symbol: str
    arguments: tuple[ArgumentSpec, ...]
    decisions: Decisions
    trace_json: str
    cost_s: float
    network_weight_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A candidate's latency: the minimum over the repeats (see `run_worker`), and their median's distance to it."""

    latency_us: float
    spread_us: float
    cost_s: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two libraries' outputs lie apart on the same random inputs.

    ``reference_us`` is the latency of the second one, which has to run for this anyway: of that one run where it is
    long, else of a few like those of candidates; None where these fail.
    """

    max_abs_error: float
    max_rel_error: float
    reference_us: float | None = None


class Builder(Protocol):
    """Builds candidates; the answers are in the order of the jobs, a failed build is a `Failure`."""

    def build(self, jobs: list[BuildJob]) -> list[Built | Failure]: ...


class Runner(Protocol):
    """Times candidates one at a time on one device, exclusively."""

    def time(self, candidates: list[Built], *, best_us: float | None) -> list[Timed | Failure]: ...
