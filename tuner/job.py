"""``python -m tuner.job DESCRIPTOR``: one attempt of a job, in a process that has nothing but its model and a folder.

Over the connected socket DESCRIPTOR comes what is asked for (`request_of`); records, cost models and events go through
it (`tuner.remote`), and at last what came of it, which is data, whatever it was: ``succeed`` with the outcome, or
``fail`` with an error. The process at the other end trusts none of it (`service.job_host`).
"""

from __future__ import annotations

import errno
import faulthandler
import socket
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuner import wire
from tuner.disk_space import had_no_space
from tuner.errors import TesseraError
from tuner.measure.build_workers import BuildHost
from tuner.measure.fleet import NoBoardError
from tuner.measure.tracker import Tracker, TrackerError
from tuner.remote import Remote, RemoteCostModelStore, RemoteRecordStore, RemoteSink
from tuner.request import Budget, TuneRequest, TuneResult
from tuner.targets import TargetSpec

_MOST_REQUEST_BYTES = 16 * 1024**2


def main(arguments: list[str] | None = None) -> int:
    (descriptor,) = sys.argv[1:] if arguments is None else arguments
    faulthandler.enable()  # a native crash leaves its Python stack in the job's log
    with socket.socket(fileno=int(descriptor)) as connection:
        connection.set_inheritable(False)
        asked = wire.receive(connection, most_bytes=_MOST_REQUEST_BYTES)
        if asked is None:
            return 1
        remote = Remote(connection)
        try:
            result = _tune(request_of(asked.body), remote)
        except EOFError:
            return 1
        except Exception as error:
            if not isinstance(error, TesseraError):
                traceback.print_exc()
            remote.ask("fail", failure_of(error))
        else:
            remote.ask("succeed", {"outcome": result.outcome, "schedules": result.schedules})
    return 0


def request_as_json(request: TuneRequest) -> dict[str, Any]:
    """What `request_of` reads."""
    return {
        **asdict(request),
        "model_path": str(request.model_path),
        "work_dir": str(request.work_dir),
        "samples": str(request.samples) if request.samples else None,
        "target": request.target.as_dict(),
    }


def request_of(given: Mapping[str, Any]) -> TuneRequest:
    """The inverse of `request_as_json`."""
    return TuneRequest(
        **{
            **given,
            "model_path": Path(given["model_path"]),
            "work_dir": Path(given["work_dir"]),
            "samples": Path(given["samples"]) if given["samples"] else None,
            "target": TargetSpec.from_dict(given["target"]),
            "budget": Budget(**given["budget"]),
            "fleet": Tracker(**given["fleet"]) if given["fleet"] else None,
            "build_hosts": tuple(BuildHost(**host) for host in given["build_hosts"]),
            "input_shapes": {name: tuple(shape) for name, shape in given["input_shapes"].items()},
        }
    )


def failure_of(error: Exception) -> dict[str, Any]:
    """An error as data: ``kind`` says what is to become of the job."""
    if had_no_space(error):
        reason = next(iter(str(error).splitlines()), errno.errorcode[errno.ENOSPC])
        return {"kind": "no_space", "error": TesseraError(reason).as_dict()}
    if isinstance(error, TesseraError):
        kind = "no_board" if isinstance(error, NoBoardError | TrackerError) else "refused"
        return {"kind": kind, "error": error.as_dict()}
    if isinstance(error, MemoryError):
        return {"kind": "no_memory", "error": TesseraError("There was not enough memory.").as_dict()}
    return {"kind": "unexpected", "error": TesseraError(f"{type(error).__name__}: {error}").as_dict()}


def _tune(request: TuneRequest, remote: Remote) -> TuneResult:
    from tuner.tune import tune  # loads TVM

    return tune(
        request,
        store=RemoteRecordStore(remote),
        models=RemoteCostModelStore(remote),
        sink=RemoteSink(remote),
    )


if __name__ == "__main__":
    sys.exit(main())
