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

from schedules.graph.layout_free import layout_free_parameters
from schedules.space import initialized_postprocs, replay, sampled_decisions
from tuner.link import link_shared
from tuner.measure.jobs import ArgumentSpec, BuildJob, Built, Decisions, Failure
from tuner.records import FailureKind

# Loop strength reduction, the widening of indices and the most aggressive code generation are 40 % of LLVM's time. Of
# 96 candidates of three tasks, the fast third changed by 1 % without them (docs/decisions/0004-search.md).
_QUICK_LLVM = {"opt-level": 2, "cl-opt": ["-disable-lsr:bool=true", "-indvars-widen-indvars:bool=false"]}
# The checks of a function's arguments are 10 % of a build. The runner makes the arguments itself.
_QUICK_PASSES = {"tirx.disable_assert": True}


@dataclass(frozen=True)
class _Task:
    mod: tvm.IRModule
    postprocs: list[Any]


@dataclass(frozen=True, kw_only=True)
class _Scheduled:
    """A candidate ready to be lowered, and what its replay found."""

    job: BuildJob
    function: tvm.tirx.PrimFunc
    arguments: tuple[ArgumentSpec, ...]
    decisions: Decisions
    cost_s: float


def serve(pipe: Connection, target_json: dict[str, object], triple: str) -> None:
    """Answer every group of `BuildJob`s on the pipe with a list of `Built` or `Failure` until the pipe closes.

    A group becomes one library: LLVM's and the linker's fixed costs are a fifth of a single candidate's build. A job's
    task may come without its module when this worker was sent it before.
    """
    compiler = _Compiler(target_json, triple)
    while True:
        pipe.send(compiler.build(pipe.recv()))


class _Compiler:
    def __init__(self, target_json: dict[str, object], triple: str) -> None:
        self._target = Target(target_json)
        self._quick_target = Target({**target_json, **_QUICK_LLVM})
        self._triple = triple
        self._tasks: dict[str, _Task] = {}

    def build(self, group: list[BuildJob]) -> list[Built | Failure]:
        replayed = [self._replay(job) for job in group]
        compiled = iter(self._compile([item for item in replayed if isinstance(item, _Scheduled)]))
        return [next(compiled) if isinstance(item, _Scheduled) else item for item in replayed]

    def _replay(self, job: BuildJob) -> _Scheduled | Failure:
        started = time.perf_counter()
        try:
            task = self._task(job)
            mod = task.mod
            decisions: Decisions = ()
            if job.trace_json is not None:
                sch = replay(task.mod, job.trace_json, task.postprocs)
                decisions = sampled_decisions(sch.trace, job.gene_instructions)
                mod = sch.mod
            weights = layout_free_parameters(task.mod["main"])
            arguments = tuple(
                ArgumentSpec(shape=tuple(map(int, info.shape)), dtype=str(info.dtype), is_weight=index in weights)
                for index, info in enumerate(ArgInfo.from_entry_func(mod, job.repacked_weights))
            )
            if job.repacked_weights:
                mod = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(mod)
        except Exception as error:
            return _failure(error, cost_s=time.perf_counter() - started)
        cost_s = time.perf_counter() - started
        return _Scheduled(job=job, function=mod["main"], arguments=arguments, decisions=decisions, cost_s=cost_s)

    def _task(self, job: BuildJob) -> _Task:
        if job.task.key not in self._tasks:
            mod = tvm.ir.load_json(job.task.module_json)
            self._tasks[job.task.key] = _Task(mod, initialized_postprocs(mod, self._target))
        return self._tasks[job.task.key]

    def _compile(self, group: list[_Scheduled]) -> list[Built | Failure]:
        """One library of the whole group; where that fails, one of each candidate, so that only the culprit fails."""
        if not group:
            return []
        started = time.perf_counter()
        symbols = [f"main_{index}" for index in range(len(group))]
        try:
            self._write_library(group, symbols)
        except Exception as error:
            if len(group) > 1:
                return [self._compile([item])[0] for item in group]
            return [_failure(error, cost_s=group[0].cost_s + time.perf_counter() - started)]
        share_s = (time.perf_counter() - started) / len(group)
        return [
            Built(
                library=group[0].job.output,
                symbol=symbol,
                arguments=item.arguments,
                decisions=item.decisions,
                trace_json=item.job.trace_json or "",
                cost_s=item.cost_s + share_s,
                network_weight_bytes=item.job.task.network_weight_bytes,
            )
            for item, symbol in zip(group, symbols, strict=True)
        ]

    def _write_library(self, group: list[_Scheduled], symbols: list[str]) -> None:
        first = group[0].job
        named = {
            symbol: item.function.with_attr("global_symbol", symbol)
            for item, symbol in zip(group, symbols, strict=True)
        }
        with tvm.transform.PassContext(config=_QUICK_PASSES if first.quick else {}):
            built = tvm.tirx.build(tvm.IRModule(named), target=self._quick_target if first.quick else self._target)
        object_file = first.output.with_suffix(f".{os.getpid()}.o")
        try:
            built.write_to_file(str(object_file), "o")
            link_shared([object_file], first.output, triple=self._triple, fast=True)
        finally:
            Path(object_file).unlink(missing_ok=True)


def _failure(error: Exception, *, cost_s: float) -> Failure:
    message = f"{type(error).__name__}: {str(error).strip()[-500:]}"
    return Failure(kind=FailureKind.BUILD_ERROR, message=message, cost_s=cost_s)
