"""``python -m tuner.measure.build_host DESCRIPTOR``: builds candidates for a job that searches on another machine.

Each connection gets one build worker of its own (`tuner.measure.builder`), with its limits of time and memory; both go
when the connection does. A request is a list of `BuildJob`s and the seconds that a build may take; its answer a list of
`Built` or `Failure` and the bytes of the libraries by name. DESCRIPTOR is a socket that listens already: a confined
process can make none. The process ends when its standard input does: with whatever started it.

Both ends belong to one job and prove it by a key (``TESSERA_BUILD_KEY``, hexadecimal): the messages are pickles. Both
are confined (`tuner.sandbox`), so that what one makes the other do is no more than it could do itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path

from tuner.measure.build_workers import KEY_VARIABLE
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import BuildJob, Built, Failure
from tuner.targets import TargetSpec

Libraries = dict[str, bytes]


def main() -> None:
    key = bytes.fromhex(os.environ.pop(KEY_VARIABLE))
    threading.Thread(target=_end_with_our_parent, daemon=True).start()
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        listener.set_inheritable(False)
        serve_all(listener, key)


def serve_all(listener: socket.socket, key: bytes, *, worker: Callable[..., None] | None = None) -> None:
    """Serve every connection whose other end has the key."""
    while True:
        accepted, _ = listener.accept()
        connection = Connection(accepted.detach())
        threading.Thread(target=serve, args=(connection, key), kwargs={"worker": worker}, daemon=True).start()


def serve(connection: Connection, key: bytes, *, worker: Callable[..., None] | None = None) -> None:
    """Build for one connection until it closes, by this worker where one is given. The first message is the target."""
    with (
        contextlib.suppress(AuthenticationError, EOFError, OSError),
        connection,
        tempfile.TemporaryDirectory(prefix="builds-") as folder,
    ):
        # As `multiprocessing.connection.Listener` does.
        deliver_challenge(connection, key)
        answer_challenge(connection, key)
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
