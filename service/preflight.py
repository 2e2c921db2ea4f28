"""The preflight of ``POST /models/{id}/check``: the tuner's check in a process of its own.

The model is a stranger's: the process is confined and has limits (`tuner.sandbox`), and a crash of it is an answer too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from pydantic import ValidationError

from service.engine.processes import JOB_VARIABLE, end_job_processes, python_module, start_time
from service.errors import Invalid, SandboxRequired, ServiceError
from service.ids import new_id
from service.queries.models import get_model
from service.queries.targets import get_target
from service.schemas.models import CheckReport
from service.services import ProjectServices
from service.settings import Settings
from tuner.errors import ModelError, SandboxUnavailable
from tuner.sandbox.files import remove_tree
from tuner.sandbox.limits import Limits, usual_processes
from tuner.sandbox.packages import compile_packages
from tuner.sandbox.refusals import Refusals
from tuner.sandbox.start import ENTER_FAILED, Policy, start

_COMMAND = python_module("tuner.frontend.check")
# Each preflight takes a core and up to gigabytes; more than two at once only make each other slower.
_AT_ONCE = threading.BoundedSemaphore(2)
# A check writes nothing but what libraries keep in temporary files.
_FILE_BYTES = 256 * 1024**2
_ANSWER_BYTES = 16 * 1024**2
_COMPLAINTS_BYTES = 2000
_CODE = re.compile(r"[a-z][a-z_]{0,63}")

log = logging.getLogger(__name__)


class Busy(ServiceError):
    status = 503
    code = "busy"
    hint = "Other checks are running; retry in a minute."


def check(
    services: ProjectServices,
    model_id: str,
    *,
    target: str,
    input_shapes: Mapping[str, Sequence[int]],
    command: Sequence[str] = _COMMAND,
) -> CheckReport:
    """The report, or the error that the tuner found: raises `ModelError` (its code says what), `NotFound`, `Busy`,
    and `SandboxRequired`."""
    model = get_model(services.database, model_id)
    spec = get_target(services.database, target)
    path = services.blobs.path(model.id)
    arguments = [*command, str(path), "--target", spec.model_dump_json()]
    for name, shape in input_shapes.items():
        arguments += ["--input-shape", f"{name}={'x'.join(str(size) for size in shape)}"]
    settings = services.settings
    if not _AT_ONCE.acquire(timeout=settings.check_timeout_s):
        raise Busy("The server is busy with other checks.")
    try:
        answer = _run(arguments, path, settings)
    finally:
        _AT_ONCE.release()
    if isinstance(answer.get("error"), dict):
        raise _error(answer["error"])
    try:
        return CheckReport.model_validate({**answer, "model_id": model.id, "target": target})
    except ValidationError as error:
        raise _crashed("its answer is none", str(error)) from error


def _run(arguments: list[str], model: Path, settings: Settings) -> dict[str, Any]:
    """What the process printed at last. Files take what it prints: they have a limit, which pipes have not."""
    refusals = Refusals(lambda name: log.warning("the sandbox refused to the check of model %s: %s", model.name, name))
    with refusals, _work_dir() as work_dir, TemporaryFile() as output, TemporaryFile() as errors:
        with _started(arguments, model, work_dir, settings, output, errors, refusals) as (child, marker):
            try:
                child.wait(settings.check_timeout_s)
            except subprocess.TimeoutExpired:
                end_job_processes(marker, pid=child.pid, started_at=start_time(child.pid))
                raise Invalid(
                    f"The check took longer than {settings.check_timeout_s:.0f} s.",
                    code="check_timeout",
                    hint="Raise TESSERA_CHECK_TIMEOUT_S on the server, or start a job: it has no such limit.",
                ) from None
        printed, complaints = _tail(output, _ANSWER_BYTES), _tail(errors, _COMPLAINTS_BYTES)
    with contextlib.suppress(ValueError, IndexError, RecursionError):
        answer = json.loads(printed.strip().splitlines()[-1])
        if isinstance(answer, dict):
            return answer
    if child.returncode == ENTER_FAILED:
        raise SandboxRequired(f"The check could not be confined: {complaints.strip()}")
    raise _crashed(_ending(child.returncode), complaints)


def _tail(file: IO[bytes], most_bytes: int) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - most_bytes))
    return file.read(most_bytes).decode(errors="replace")


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _crashed(how: str, complaints: str) -> ModelError:
    return ModelError(
        f"The compiler crashed while it imported the model ({how}).",
        code="compiler_crashed",
        hint="The model makes the compiler crash. Export it with another opset or simplify it, and please report it.",
        details={"stderr": complaints[-_COMPLAINTS_BYTES:]},
    )


@contextlib.contextmanager
def _work_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tessera-check-"))
    try:
        yield folder
    finally:
        remove_tree(folder)


@contextlib.contextmanager
def _started(
    arguments: list[str],
    model: Path,
    work_dir: Path,
    settings: Settings,
    output: IO[bytes],
    errors: IO[bytes],
    refusals: Refusals,
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The confined process, and the mark by which all that it starts is found."""
    marker = f"check-{new_id()}"
    policy = Policy(
        work_dir=work_dir,
        read=(model,),
        secrets=(settings.data_dir,),
        limits=Limits(
            address_space_bytes=settings.check_memory_bytes,
            cpu_s=int(settings.check_timeout_s + 1) * (os.cpu_count() or 1),
            file_bytes=_FILE_BYTES,
            processes=usual_processes(),
        ),
        keeper=True,
    )
    compile_packages()
    try:
        child = start(
            arguments,
            policy,
            mode=settings.sandbox,
            environment={JOB_VARIABLE: marker},
            refusals=refusals,
            stdout=output.fileno(),
            stderr=errors.fileno(),
        )
    except SandboxUnavailable as error:
        raise SandboxRequired(error.message, hint=error.hint) from error
    with child:
        yield child, marker


def _error(told: dict[str, Any]) -> ModelError:
    """The tuner's error, as far as it is one."""
    code, details = str(told.get("code")), told.get("details")
    if not _CODE.fullmatch(code):
        return _crashed("its answer is none", str(told)[:_COMPLAINTS_BYTES])
    return ModelError(
        str(told.get("message", "The check failed."))[:_COMPLAINTS_BYTES],
        code=code,
        hint=str(told.get("hint", ModelError.hint))[:_COMPLAINTS_BYTES],
        details=details if isinstance(details, dict) else None,
    )
