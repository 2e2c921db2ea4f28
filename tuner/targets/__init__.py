"""Targets: what code is generated for. Free of TVM, so that the web process can list them."""

from __future__ import annotations

from tuner.errors import TargetError
from tuner.targets.catalogue import catalogue, read_targets
from tuner.targets.host import can_measure, can_run, checked_on, host_target
from tuner.targets.spec import TIMING_VERSION, TargetSpec, tvm_version

__all__ = [
    "TIMING_VERSION",
    "TargetSpec",
    "can_measure",
    "can_run",
    "checked_on",
    "find_target",
    "host_target",
    "list_targets",
    "no_device",
    "read_targets",
    "tvm_version",
]


def find_target(name: str) -> TargetSpec:
    """The target of that name; raises `TargetError` (``unknown_target``) with the names that exist."""
    targets = {spec.name: spec for spec in list_targets()}
    if name not in targets:
        raise TargetError(
            f"There is no target named {name!r}.",
            hint=f"Known targets: {', '.join(targets)}. Show them with: tessera targets list",
        )
    return targets[name]


def no_device(spec: TargetSpec) -> TargetError:
    """The error for a job that is to be measured where nothing can measure."""
    return TargetError(
        f"No device here can measure code for target {spec.name} ({spec.device}).",
        code="no_device",
        hint="Build without measuring, from what is known of the target (measure: none), or tune for host.",
        details={"target": spec.name, "choices": ["measure: none", "target: host"]},
    )


def list_targets() -> list[TargetSpec]:
    """Every target known here, `host` first."""
    return [host_target(), *catalogue()]
