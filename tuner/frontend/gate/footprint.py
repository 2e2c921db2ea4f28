"""What the network would need: memory for a run, and code."""

from __future__ import annotations

import os
import resource

from tuner.errors import ModelError
from tuner.frontend.gate.limits import CODE_BYTES_PER_OPERATOR, MAX_CODE_BYTES, TooComplex

_GIB = 1024**3


def require_footprint(
    *, activation_bytes: int, weights_bytes: int, operators: int, memory_bytes: int | None = None
) -> None:
    """Refuse what this machine cannot run, since every network is verified here, and what is too much code.

    ``activation_bytes`` is the estimate of `peak_activation_bytes`, ``operators`` what is left when constants are
    folded; ``memory_bytes`` defaults to `machine_memory_bytes`. Raises `ModelError` (``model_too_large``) and
    `TooComplex`.
    """
    memory_bytes = machine_memory_bytes() if memory_bytes is None else memory_bytes
    needed_bytes = activation_bytes + weights_bytes
    if needed_bytes > memory_bytes:
        raise ModelError(
            f"One run takes about {needed_bytes / _GIB:.1f} GiB ({activation_bytes / _GIB:.1f} GiB of activations), "
            f"where this machine gives {memory_bytes / _GIB:.1f} GiB.",
            code="model_too_large",
            hint="Give smaller input shapes (a smaller batch), or tune it on a machine with more memory.",
            details={
                "activation_bytes": activation_bytes,
                "weights_bytes": weights_bytes,
                "memory_bytes": memory_bytes,
            },
        )
    code_bytes = operators * CODE_BYTES_PER_OPERATOR
    if code_bytes > MAX_CODE_BYTES:
        raise TooComplex(
            f"{operators} operators become about {code_bytes / 1024**2:.0f} MiB of code, where at most "
            f"{MAX_CODE_BYTES // 1024**2} MiB are taken.",
            details={"limit": "code_bytes", "found": code_bytes, "allowed": MAX_CODE_BYTES},
        )


def machine_memory_bytes() -> int:
    """What this process may have: the machine's memory, or its own limit of address space where that is less."""
    physical_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical_bytes if limit_bytes == resource.RLIM_INFINITY else min(limit_bytes, physical_bytes)
