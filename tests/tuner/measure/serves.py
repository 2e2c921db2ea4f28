"""Children that misbehave on purpose, by what the job's output file is called. They load no TVM."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from tuner.measure.jobs import BuildJob, Built, Failure, Timed
from tuner.records import FailureKind


def build_serve(pipe: Connection, target: dict[str, object], triple: str) -> None:
    while True:
        group: list[BuildJob] = pipe.recv()
        pipe.send([_build(job, f"group of {len(group)}") for job in group])


def _build(job: BuildJob, said: str) -> Built | Failure:
    behave(job.output.stem)
    if "hungry" in job.output.stem:
        try:
            bytearray(8 * 1024**3)
        except MemoryError as error:
            return Failure(kind=FailureKind.BUILD_ERROR, message=type(error).__name__)
    if "refused" in job.output.stem:
        return Failure(kind=FailureKind.BUILD_ERROR, message="refused")
    known = "with module" if job.task.module_json else "without module"
    return Built(
        library=job.output,
        symbol="main_0",
        arguments=(),
        decisions=(),
        trace_json=f"{os.getpid()} {known} in a {said}",
        cost_s=0.0,
    )


def library_serve(pipe: Connection, target: dict[str, object], triple: str) -> None:
    """The same with a library, which says who made it; good candidates take a moment."""
    while True:
        group: list[BuildJob] = pipe.recv()
        time.sleep(0.05)
        answers = [_build(job, "library") for job in group]
        for answer in answers:
            if isinstance(answer, Built):
                answer.library.write_text(str(os.getpid()))
        pipe.send(
            [
                replace(answer, trace_json=str(os.getpid())) if isinstance(answer, Built) else answer
                for answer in answers
            ]
        )


def run_serve(pipe: Connection, threads: int) -> None:
    names: dict[int, str] = {}
    rounds: dict[int, int] = {}
    while True:
        request: tuple[Any, ...] = pipe.recv()
        match request:
            case ("load", index, Built() as built, *_):
                behave(built.library.stem)
                names[index] = built.library.stem
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
