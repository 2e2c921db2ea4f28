"""Where job processes run: what the engine asks of this machine, or of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.jobs.deaths import Death
from service.jobs.queue import ActiveJob, Claim
from tuner.targets import TargetSpec


class CannotStart(Exception):
    """There is no place for a job now, for a reason that has nothing to do with it; the message says which."""


class Placement(Protocol):
    """Starts, watches and ends the processes of jobs. Only the engine's thread calls it, but for `describe`, `problem`
    and `waiting_for`."""

    def describe(self) -> str:
        """What and where it is, for people."""

    def problem(self) -> str | None:
        """Why no job can be started or looked at now; None when all is well."""

    def waiting_for(self, spec: TargetSpec) -> str | None:
        """What a job that is measured on the target waits for; None where something can measure it."""

    def occupied(self, spec: TargetSpec) -> str | None:
        """What another job that is measured on the target waits for though something can measure it; None when it may
        start now."""

    def start(self, claim: Claim) -> None:
        """Start an attempt's process, or ask for it: nobody else may have to wait for that. Raises `CannotStart` when
        there is no place for it now, and OSError when its process cannot be started."""

    def death(self, job: ActiveJob) -> Death | None:
        """How the job's process ended; None when it is alive, or nobody knows. Raises `CannotStart` when it turned out
        that there is no place for it."""

    def end(self, job: ActiveJob) -> bool:
        """Kill what is left of the job's processes; True when nothing is."""

    def clear(self, job_id: str) -> None:
        """Remove the files that an ended job kept from one attempt to the next."""

    def release(self, active: Mapping[str, int]) -> None:
        """Let go of what is held for any but the active jobs, given with the number of their attempt."""

    def close(self) -> None:
        """Stop watching. The processes go on; the next engine adopts them."""
