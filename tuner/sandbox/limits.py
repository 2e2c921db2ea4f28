"""How much a confined process may take: resource limits of the kernel, for it and each process that it starts."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass

from tuner.sandbox.user import processes

_HARD_CAP_PROCESSES = 32_768


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None sets no limit. All but ``processes`` count for each process on its own.

    ``address_space_bytes`` are addresses, used or not; ``data_bytes`` private memory; ``cpu_s`` processor time;
    ``file_bytes`` the largest file; ``processes`` how many, threads among them, there may be beside those that the user
    has already. The kernel does not count those of root (`user`).
    """

    address_space_bytes: int | None = None
    data_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None
    processes: int | None = None
    open_files: int | None = 4096

    def apply(self) -> None:
        """To this process. Limits that are lower already stay."""
        running = _threads_of(os.getuid()) if self.processes is not None else 0
        wanted = {
            resource.RLIMIT_AS: self.address_space_bytes,
            resource.RLIMIT_DATA: self.data_bytes,
            resource.RLIMIT_CPU: self.cpu_s,
            resource.RLIMIT_FSIZE: self.file_bytes,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_NPROC: None if self.processes is None else self.processes + running,
            resource.RLIMIT_CORE: 0,
        }
        for kind, value in wanted.items():
            if value is not None:
                hard = resource.getrlimit(kind)[1]
                limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(kind, (limit, limit))


def usual_processes() -> int:
    """More processes and threads than an honest job starts: each of its builders, one a core, may have as many threads
    as there are cores."""
    cores = os.cpu_count() or 1
    return min(512 + 4 * cores * cores, _HARD_CAP_PROCESSES)


def _threads_of(uid: int) -> int:
    """How many threads a user has now, as far as ``/proc`` tells."""
    count = 0
    for pid, owner in processes():
        if owner == uid:
            with contextlib.suppress(OSError):  # ended meanwhile
                count += len(os.listdir(f"/proc/{pid}/task"))
    return count
