"""``python -m tuner.measure.build_host ADDRESS``: builds candidates for a job that searches on another machine.

Each connection gets one build worker of its own (`tuner.measure.builder`), with its limits of time and memory; both go
when the connection does. A request is a list of `BuildJob`s and the seconds that a build may take; its answer a list of
`Built` or `Failure` and the bytes of the libraries by name. The process prints its port, and ends when its standard
input does: with whatever started it.

Both ends belong to one job and prove it by a key (``TESSERA_BUILD_KEY``, hexadecimal): the messages are pickles.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from tuner.measure.build_workers import KEY_VARIABLE
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import BuildJob, Built, Failure
from tuner.targets import TargetSpec

Libraries = dict[str, bytes]


def main() -> None:
    address = sys.argv[1]
    threading.Thread(target=_end_with_our_parent, daemon=True).start()
    with Listener((address, 0), authkey=bytes.fromhex(os.environ.pop(KEY_VARIABLE))) as listener:
        print(listener.address[1], flush=True)
        serve_all(listener)


def serve_all(listener: Listener, *, worker: Callable[..., None] | None = None) -> None:
    """Serve every connection whose other end has the key."""
    while True:
        try:
            connection = listener.accept()
        except (AuthenticationError, EOFError, ConnectionError):
            continue
        threading.Thread(target=serve, args=(connection,), kwargs={"worker": worker}, daemon=True).start()


def serve(connection: Connection, *, worker: Callable[..., None] | None = None) -> None:
    """Build for one connection until it closes, by this worker where one is given. The first message is the target."""
    with contextlib.suppress(EOFError, OSError), connection, tempfile.TemporaryDirectory(prefix="builds-") as folder:
        target: TargetSpec = connection.recv()
        with BuildPool(target, workers=1, serve=worker) as pool:
            while True:
                jobs, limit_s = connection.recv()
                connection.send(_build(pool, jobs, limit_s, Path(folder)))


def _build(
    pool: BuildPool, jobs: list[BuildJob], limit_s: float, folder: Path
) -> tuple[list[Built | Failure], Libraries]:
    answers = pool.build([replace(job, output=folder / job.output.name) for job in jobs], timeout_s=limit_s)
    libraries: Libraries = {}
    for path in {answer.library for answer in answers if isinstance(answer, Built)}:
        libraries[path.name] = path.read_bytes()
        path.unlink()
    return answers, libraries


def _end_with_our_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
