"""A candidate that wants more memory than there is, built and run by real workers."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import tvm
from tvm import te

from tuner.measure import child
from tuner.measure.builder import BuildPool
from tuner.measure.child import Child
from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource, Timed
from tuner.measure.runner import LocalRunner
from tuner.records import FailureKind
from tuner.targets import host_target

GIB = 1024**3
SPEC = host_target()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's data")


def source(name: str, *, workspace: int) -> TaskSource:
    """Eight sums over a workspace of so many floats."""
    x = te.placeholder((8,), name="X")
    wide = te.compute((workspace,), lambda i: x[i % 8] + 1.0, name="wide")
    out = te.compute((8,), lambda i: wide[i * (workspace // 8)], name="out")
    mod = tvm.IRModule({"main": te.create_prim_func([x, out])})
    return TaskSource(key=name, module_json=tvm.ir.save_json(mod))


def test_a_runaway_candidate_fails_and_the_next_one_is_timed(tmp_path: Path) -> None:
    tasks = [source("small", workspace=64), source("huge", workspace=2**30), source("next", workspace=128)]
    jobs = [BuildJob(task=task, trace_json=None, output=tmp_path / f"{task.key}.so") for task in tasks]
    with BuildPool(SPEC, workers=1, timeout_s=60) as builder:
        built = [each for each in builder.build(jobs) if isinstance(each, Built)]
    assert len(built) == 3
    with LocalRunner(threads=1, timeout_s=60, child_memory_bytes=2 * GIB) as runner:
        small, huge, other = runner.time(built, best_us=None)
    assert isinstance(small, Timed)
    assert isinstance(other, Timed)
    assert isinstance(huge, Failure)
    assert huge.kind is FailureKind.RUN_ERROR


def limits(pipe: Connection) -> None:
    import resource

    pipe.send((resource.getrlimit(resource.RLIMIT_DATA)[0], int(os.popen("ulimit -d").read()) * 1024))
    pipe.recv()


def test_a_child_and_what_it_starts_have_the_limit() -> None:
    limited = Child(limits, memory_bytes=3 * GIB)
    assert limited.pipe.recv() == (3 * GIB, 3 * GIB)
    limited.kill()


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(child, "_GROUP_LIMIT", group)
    machine = child.usable_memory_bytes()
    group.write_text("max\n")
    assert child.usable_memory_bytes() == machine
    group.write_text(f"{GIB}\n")
    assert child.usable_memory_bytes() == GIB
