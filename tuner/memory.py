"""What a network's activations need: by plan, and as a run of the module shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm

from schedules.memory.lifetimes import activations, with_allocations
from schedules.memory.storages import share
from schedules.memory.workspace import workspace_bytes
from tuner.network_process import NetworkProcess, Sample


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Memory of one run, constants not counted.

    ``storage_bytes`` hold every tensor between input and output, ``workspace_bytes`` are what functions allocate for
    themselves, ``timeline`` tells how much is alive in each function.
    """

    storage_bytes: int
    workspace_bytes: int
    input_bytes: int
    output_bytes: int
    timeline: tuple[tuple[str, int], ...]

    @property
    def peak_bytes(self) -> int:
        """What a run allocates: everything but the input, which is the caller's."""
        return self.storage_bytes + self.workspace_bytes + self.output_bytes

    def as_dict(self) -> dict[str, object]:
        return {
            "planned_peak_bytes": self.peak_bytes,
            "storage_bytes": self.storage_bytes,
            "workspace_bytes": self.workspace_bytes,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "timeline": timeline_as_dicts(self.timeline),
        }


def timeline_as_dicts(timeline: Sequence[tuple[str, int]]) -> list[dict[str, object]]:
    return [{"function": name, "bytes": alive} for name, alive in timeline]


def plan_memory(mod: tvm.IRModule, *, threads: int | None) -> MemoryPlan | None:
    """The memory of a fused module, scheduled or not yet; None where shapes are not known. Functions on a GPU work in
    its registers and shared memory: ``threads`` is None."""
    found = activations(with_allocations(mod))
    if found is None:
        return None
    return MemoryPlan(
        storage_bytes=share(list(found.lifetimes.values())).total_bytes,
        workspace_bytes=0 if threads is None else workspace_bytes(mod, threads=threads),
        input_bytes=found.input_bytes,
        output_bytes=found.output_bytes,
        timeline=tuple(found.timeline),
    )


def measured_peak_bytes(module: Path, sample: Sample, inputs: list[str], *, threads: int) -> int | None:
    """What a run of a built module really allocates at most, None where nobody knows. Raises `WorkerError`."""
    with NetworkProcess(module, kind="tvm", threads=threads) as network:
        return network.peak_bytes(sample, inputs)
