"""The child that builds candidates: replay, lower, LLVM, link. It lives for many builds; its state is caches."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tvm
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock
from tvm.target import Target

from schedules.space import initialized_postprocs, replay, sampled_decisions
from tuner.link import link_shared
from tuner.measure.jobs import ArgumentSpec, BuildJob, Built, Decisions, Failure
from tuner.records import FailureKind


@dataclass(frozen=True)
class _Task:
    mod: tvm.IRModule
    postprocs: list[Any]


def serve(pipe: Connection, target_json: dict[str, object], triple: str) -> None:
    """Answer every `BuildJob` on the pipe with `Built` or `Failure` until the pipe closes.

    A job's task may come without its module when this worker was sent it before.
    """
    target = Target(target_json)
    tasks: dict[str, _Task] = {}
    while True:
        job: BuildJob = pipe.recv()
        started = time.perf_counter()
        try:
            if job.task.key not in tasks:
                mod = tvm.ir.load_json(job.task.module_json)
                tasks[job.task.key] = _Task(mod, initialized_postprocs(mod, target))
            answer: Built | Failure = _build(job, tasks[job.task.key], target=target, triple=triple, started=started)
        except Exception as error:
            message = f"{type(error).__name__}: {str(error).strip()[-500:]}"
            cost_s = time.perf_counter() - started
            answer = Failure(kind=FailureKind.BUILD_ERROR, message=message, cost_s=cost_s)
        pipe.send(answer)


def _build(job: BuildJob, task: _Task, *, target: Target, triple: str, started: float) -> Built:
    mod, trace_json = task.mod, ""
    decisions: Decisions = ()
    if job.trace_json is not None:
        sch = replay(task.mod, job.trace_json, task.postprocs)
        decisions = sampled_decisions(sch.trace, job.gene_instructions)
        trace_json = job.trace_json
        mod = sch.mod
    arguments = tuple(
        ArgumentSpec(shape=tuple(int(extent) for extent in info.shape), dtype=str(info.dtype))
        for info in ArgInfo.from_entry_func(mod, job.repacked_weights)
    )
    if job.repacked_weights:
        mod = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(mod)
    built = tvm.tirx.build(mod, target=target)
    object_file = job.output.with_suffix(f".{os.getpid()}.o")
    try:
        built.write_to_file(str(object_file), "o")
        link_shared([object_file], job.output, triple=triple, fast=True)
    finally:
        Path(object_file).unlink(missing_ok=True)
    return Built(
        library=job.output,
        arguments=arguments,
        decisions=decisions,
        trace_json=trace_json,
        cost_s=time.perf_counter() - started,
    )
