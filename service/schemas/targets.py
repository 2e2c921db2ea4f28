"""What code is generated for, and what measures it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


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
