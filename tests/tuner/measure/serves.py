"""Children that misbehave on purpose, by what the job's output file is called. They load no TVM."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

from tuner.measure.jobs import BuildJob, Built, Failure, Timed
from tuner.records import FailureKind


def build_serve(pipe: Connection, target: dict[str, object], triple: str) -> None:
    while True:
        job: BuildJob = pipe.recv()
        behave(job.output.stem)
        if "refused" in job.output.stem:
            pipe.send(Failure(kind=FailureKind.BUILD_ERROR, message="refused"))
            continue
        known = "with module" if job.task.module_json else "without module"
        built = Built(library=job.output, arguments=(), decisions=(), trace_json=f"{os.getpid()} {known}", cost_s=0.0)
        pipe.send(built)


def run_serve(pipe: Connection, threads: int) -> None:
    names: dict[int, str] = {}
    rounds: dict[int, int] = {}
    while True:
        request: tuple[Any, ...] = pipe.recv()
        match request:
            case ("load", index, library, *_):
                behave(library.stem)
                names[index] = library.stem
                pipe.send(("loaded", index))
            case ("round", index):
                behave(names[index].removeprefix("later-"))
                rounds[index] = rounds.get(index, 0) + 1
                if rounds[index] == 2:
                    behave(names[index].removeprefix("second-"))
                pipe.send(("done", index, float(names[index].rpartition("-")[2])))
            case ("finish", index):
                latency_us = float(names[index].rpartition("-")[2])
                pipe.send(("timed", index, Timed(latency_us=latency_us, spread_us=0.0, cost_s=0.0)))


def behave(name: str) -> None:
    if name.startswith("segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("exit"):
        os._exit(3)
    if name.startswith("hang"):
        time.sleep(600)
