"""Does the memory of a long job stay flat, and does it leave anything behind?

    python benchmarks/endurance.py [--model inception_v1] [--trials 2000]

Runs ``tessera tune`` and looks at the job's process tree every second: the job's own process (the *parent*) by its
resident set, everything below it (fork server, build workers, runner, networks that are timed) by the proportional set
size, which counts a page that several processes share once. The slopes are least-squares fits over the search, from
trial 200 on, when every process has loaded what it needs. ``tree_peak_mib`` is of the whole job, its final build and
comparison included.

``orphans`` are processes of the command, or of anything that it started, that live five seconds after it ended.
``leftovers`` are files and folders left in its temporary directory or in the job's work directory.

A network must have enough tasks that 2,000 trials do not exhaust it: the default has about 80. It takes 5 to 10 minutes
on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command_line import environment
from benchmarks.networks import NETWORKS, write_network
from benchmarks.rows import Row, provenance
from service.access.local_token import read_local_token
from service.client import Client, RequestFailed, ServerUnreachable
from service.schemas.jobs import JobSchema
from service.settings import Settings

_MARK = "ENDURANCE_RUN"
_MIB = 1024**2
_INTERVAL_S = 1.0
_GRACE_S = 5.0
_FROM_TRIAL = 200
_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at a job. ``parent_mib`` is a resident set, the others are proportional set sizes."""

    seconds: float
    trials: int
    stage: str
    parent_mib: float
    fork_server_mib: float
    workers_mib: float
    tree_mib: float
    processes: int


def watch(command: subprocess.Popen[bytes], data_dir: Path) -> list[Sample]:
    """Look at the command's job until the command ends."""
    settings = Settings(data_dir=data_dir)
    started = time.monotonic()
    samples: list[Sample] = []
    while command.poll() is None:
        time.sleep(_INTERVAL_S)
        job, root = running_job(settings), job_process(command.pid)
        if job is not None and root is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                samples.append(look_at(root, job, time.monotonic() - started))
    return samples


def running_job(settings: Settings) -> JobSchema | None:
    """The job as the server inside the command tells it; None before it answers and after it has gone."""
    try:
        # Not by `service.ownership`, which tries the lock that the command is about to take.
        url = json.loads(settings.address_path.read_text())["url"]
        with Client(url, token=read_local_token(settings)) as client:
            return next(iter(client.jobs(limit=1)), None)
    except (OSError, ValueError, ServerUnreachable, RequestFailed):
        return None


def job_process(command_pid: int) -> psutil.Process | None:
    """The process of the job that has the model, below the command."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(command_pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cmdline()[-3:-1] == ["-m", "tuner.job"]:
                    return child
    return None


def look_at(root: psutil.Process, job: JobSchema, seconds: float) -> Sample:
    """Memory of the job's tree; raises psutil.NoSuchProcess when the job's process has ended."""
    servers = [child for child in root.children() if "tuner.measure.fork_server" in " ".join(child.cmdline())]
    workers = {worker.pid for server in servers for worker in server.children(recursive=True)}
    sizes = {root.pid: _proportional_bytes(root)}
    for process in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes[process.pid] = _proportional_bytes(process)
    return Sample(
        seconds=round(seconds, 1),
        trials=job.progress.trials_done,
        stage=job.stage or "",
        parent_mib=root.memory_info().rss / _MIB,
        fork_server_mib=sum(sizes.get(server.pid, 0) for server in servers) / _MIB,
        workers_mib=sum(size for pid, size in sizes.items() if pid in workers) / _MIB,
        tree_mib=sum(sizes.values()) / _MIB,
        processes=len(sizes),
    )


def _proportional_bytes(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)


def slope_mib(samples: list[Sample], name: str) -> float | None:
    """MiB for 1,000 trials by least squares over the search; None when there is too little of it.

    The last trial's samples are left out but for one: the search is over, and winners are being checked.
    """
    most = max((sample.trials for sample in samples), default=0)
    end = next((index for index, sample in enumerate(samples) if sample.trials == most), 0)
    chosen = [sample for sample in samples[: end + 1] if sample.stage == "tune" and sample.trials >= _FROM_TRIAL]
    trials = np.array([sample.trials for sample in chosen], dtype=np.float64)
    if len(chosen) < 10 or not np.ptp(trials):
        return None
    slope, _ = np.polyfit(trials, np.array([getattr(sample, name) for sample in chosen]), 1)
    return round(float(1000 * slope), 2)


def orphans_of(mark: str) -> list[str]:
    """Command lines of the marked processes that do not end within a few seconds."""
    deadline = time.monotonic() + _GRACE_S
    while (found := list(_marked(mark))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _marked(mark: str) -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield f"{process.pid}: {' '.join(process.cmdline())[:200]}"


def leftovers_in(temporary: Path, data_dir: Path) -> list[str]:
    """What lies in the temporary directory and in the work directories of jobs."""
    work = [path for folder in data_dir.glob("jobs/*/work") for path in (folder, *folder.rglob("*"))]
    return [str(path) for path in (*temporary.rglob("*"), *work)]


def table(samples: list[Sample]) -> str:
    """About twenty of the samples, evenly spread, the last one among them."""
    lines = [
        f"{'s':>7} {'trials':>6} {'stage':10} {'parent':>8} {'fork server':>11} {'workers':>8} {'tree':>8} "
        f"{'processes':>9}   (MiB; parent resident, others proportional)"
    ]
    for index in np.linspace(0, len(samples) - 1, min(_LINES, len(samples))).round().astype(int):
        sample = samples[index]
        lines.append(
            f"{sample.seconds:7.0f} {sample.trials:6d} {sample.stage:10} {sample.parent_mib:8.1f} "
            f"{sample.fork_server_mib:11.1f} {sample.workers_mib:8.1f} {sample.tree_mib:8.1f} {sample.processes:9d}"
        )
    return "\n".join(lines)


def endure(name: str, trials: int) -> tuple[list[Sample], Row]:
    """The samples of one job, and the row that follows from them. Ends the program when the job fails."""
    mark = uuid4().hex
    with tempfile.TemporaryDirectory(prefix="endurance-") as directory:
        workspace = Path(directory)
        model = write_network(name, workspace)
        data_dir, temporary = workspace / "data", workspace / "tmp"
        temporary.mkdir()
        arguments = ["tune", str(model), "--trials", str(trials), "--out", str(workspace), "--json"]
        with (workspace / "answer.json").open("wb") as output:
            command = subprocess.Popen(
                [sys.executable, "-m", "service", *arguments],
                env={**environment(data_dir), "TMPDIR": str(temporary), _MARK: mark},
                stdout=output,
                stdin=subprocess.DEVNULL,
            )
            try:
                samples = watch(command, data_dir)
            finally:
                if command.poll() is None:
                    command.terminate()
                    command.wait()
        orphans, leftovers = orphans_of(mark), leftovers_in(temporary, data_dir)
        if command.returncode:
            raise SystemExit(f"tessera tune ended with status {command.returncode}")
    for line in [*orphans, *leftovers]:
        print(f"left behind: {line}", file=sys.stderr)
    return samples, {
        "network": name,
        **provenance(),
        "trials": max((sample.trials for sample in samples), default=0),
        "seconds": samples[-1].seconds if samples else 0.0,
        "parent_mib_per_1000_trials": slope_mib(samples, "parent_mib"),
        "tree_mib_per_1000_trials": slope_mib(samples, "tree_mib"),
        "parent_peak_mib": round(max((sample.parent_mib for sample in samples), default=0.0), 1),
        "tree_peak_mib": round(max((sample.tree_mib for sample in samples), default=0.0), 1),
        "orphans": len(orphans),
        "leftovers": len(leftovers),
    }


def main() -> int:
    if not os.path.exists("/proc/self/smaps_rollup"):
        raise SystemExit("Proportional set sizes are read from Linux's /proc.")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=NETWORKS, default="inception_v1")
    parser.add_argument("--trials", type=int, default=2000)
    arguments = parser.parse_args()
    samples, row = endure(arguments.model, arguments.trials)
    print(table(samples))
    keys = ("parent_mib_per_1000_trials", "tree_mib_per_1000_trials", "tree_peak_mib", "orphans", "leftovers")
    print(json.dumps({key: row[key] for key in keys} | {"rows": [row]}))
    return 0 if not row["orphans"] and not row["leftovers"] else 1


if __name__ == "__main__":
    sys.exit(main())
