"""Adding targets."""

from __future__ import annotations

from sqlalchemy import select

from service.database.tables import Target
from service.errors import Conflict, Invalid
from service.queries.targets import get_target
from service.schemas.targets import TargetCreate, TargetSchema
from service.services import ProjectServices
from tuner.targets import TargetSpec, host_target, list_targets

_CUDA_FIELDS = {"arch", "host", "max_threads_per_block", "max_shared_memory_per_block", "thread_warp_size"}


def create_target(services: ProjectServices, request: TargetCreate) -> TargetSchema:
    """Store a target; raises `Conflict` (``target_exists``) and `Invalid` (``invalid_target``)."""
    if request.tvm.get("kind") not in ("llvm", "cuda"):
        raise Invalid(
            "Only LLVM and CUDA targets can be built.", code="invalid_target", hint='Give a "kind": "llvm" in "tvm".'
        )
    if request.tvm["kind"] == "cuda" and (missing := _CUDA_FIELDS - request.tvm.keys()):
        raise Invalid(
            f"A CUDA target needs {', '.join(sorted(missing))} in tvm.",
            code="invalid_target",
            hint="Begin with one that is there: tessera targets show cuda-8.0 --json",
        )
    host = host_target()
    device = request.device or (host.device if request.triple == host.triple else request.name)
    spec = TargetSpec.from_dict({**request.model_dump(), "device": device})
    with services.database.write() as session:
        builtin = {known.name for known in list_targets()}
        known_one = select(Target.name).where(Target.name == request.name)
        if request.name in builtin or session.scalar(known_one) is not None:
            raise Conflict(
                f"There is a target named {request.name!r} already.",
                code="target_exists",
                hint="Choose another name: records belong to a target as it was measured.",
            )
        session.add(Target(name=spec.name, spec=spec.as_dict()))
    return get_target(services.database, spec.name)
