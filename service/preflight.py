"""The preflight of ``POST /models/{id}/check``: the tuner's check in a process of its own.

The model is a stranger's: the process has a time limit and a memory limit, and a crash of it is an answer too.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from service.api.schemas import CheckReport
from service.engine.processes import child_environment, end_job_processes, python_module, start_time
from service.errors import Invalid, ServiceError
from service.ids import new_id
from service.queries.models import get_model
from service.queries.targets import get_target
from service.services import Services
from tuner.errors import ModelError

_COMMAND = python_module("tuner.frontend.check")
# Each preflight takes a core and up to gigabytes; more than two at once only make each other slower.
_AT_ONCE = threading.BoundedSemaphore(2)


class Busy(ServiceError):
    status = 503
    code = "busy"
    hint = "Other checks are running; retry in a minute."


def check(
    services: Services,
    model_id: str,
    *,
    target: str,
    input_shapes: Mapping[str, Sequence[int]],
    command: Sequence[str] = _COMMAND,
) -> CheckReport:
    """The report, or the error that the tuner found: raises `ModelError` (its code says what), `NotFound`, `Busy`."""
    model = get_model(services.database, model_id)
    spec = get_target(services.database, target)
    arguments = [*command, str(services.blobs.path(model.id)), "--target", spec.model_dump_json()]
    for name, shape in input_shapes.items():
        arguments += ["--input-shape", f"{name}={'x'.join(str(size) for size in shape)}"]
    settings = services.settings
    if not _AT_ONCE.acquire(timeout=settings.check_timeout_s):
        raise Busy("The server is busy with other checks.")
    try:
        answer = _run(arguments, timeout_s=settings.check_timeout_s, memory_bytes=settings.check_memory_bytes)
    finally:
        _AT_ONCE.release()
    if isinstance(answer.get("error"), dict):
        raise _error(answer["error"])
    return CheckReport.model_validate({**answer, "model_id": model.id, "target": target})


def _run(arguments: list[str], *, timeout_s: float, memory_bytes: int) -> dict[str, Any]:
    marker = f"check-{new_id()}"
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(marker),
    ) as child:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(child.pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        try:
            output, errors = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            end_job_processes(marker, pid=child.pid, started_at=start_time(child.pid))
            raise Invalid(
                f"The check took longer than {timeout_s:.0f} s.",
                code="check_timeout",
                hint="Raise TESSERA_CHECK_TIMEOUT_S on the server, or start a job: it has no such limit.",
            ) from None
    with contextlib.suppress(ValueError, IndexError):
        answer = json.loads(output.decode().strip().splitlines()[-1])
        if isinstance(answer, dict):
            return answer
    tail = errors.decode(errors="replace")[-2000:]
    how = f"exit code {child.returncode}"
    if child.returncode < 0:
        how = signal.Signals(-child.returncode).name
    raise ModelError(
        f"The compiler crashed while it imported the model ({how}).",
        code="compiler_crashed",
        hint="The model makes the compiler crash. Export it with another opset or simplify it, and please report it.",
        details={"stderr": tail},
    )


def _error(told: dict[str, Any]) -> ModelError:
    details = told.get("details")
    return ModelError(
        str(told.get("message", "The check failed.")),
        code=str(told.get("code", ModelError.code)),
        hint=str(told.get("hint", ModelError.hint)),
        details=details if isinstance(details, dict) else None,
    )
