from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tuner.measure.serves import build_serve
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource
from tuner.records import FailureKind
from tuner.targets import host_target


def jobs(*names: str, quick: bool = False) -> list[BuildJob]:
    source = TaskSource(key="t", module_json="{}")
    return [BuildJob(task=source, trace_json="[]", output=Path(f"/nowhere/{name}.so"), quick=quick) for name in names]


def pool(**settings: Any) -> BuildPool:
    return BuildPool(host_target(), workers=2, serve=build_serve, **settings)


def test_answers_come_in_the_order_of_the_jobs() -> None:
    with pool() as builder:
        answers = builder.build(jobs(*(f"job-{index}" for index in range(7))))
    assert [answer.library.stem for answer in answers if isinstance(answer, Built)] == [f"job-{i}" for i in range(7)]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("segfault", FailureKind.BUILD_ERROR, "SIGSEGV"),
        ("exit", FailureKind.BUILD_ERROR, "status 3"),
        ("hang", FailureKind.BUILD_TIMEOUT, "longer than"),
        ("refused", FailureKind.BUILD_ERROR, "refused"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_a_bad_candidate_fails_alone(name: str, kind: FailureKind, said: str, quick: bool) -> None:
    with pool(timeout_s=2.0) as builder:
        answers = builder.build(jobs("good-1", name, "good-2", "good-3", quick=quick))
        bad = answers[1]
        assert isinstance(bad, Failure)
        assert bad.kind is kind
        assert said in bad.message
        assert all(isinstance(answer, Built) for answer in (answers[0], answers[2], answers[3]))
        assert all(isinstance(answer, Built) for answer in builder.build(jobs("after-1", "after-2")))


def test_a_runaway_build_fails_alone() -> None:
    with pool(worker_memory_bytes=4 * 1024**3) as builder:
        answers = builder.build(jobs("good-1", "hungry", "good-2"))
    assert [isinstance(answer, Built) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], Failure)
    assert (answers[1].kind, answers[1].message) == (FailureKind.BUILD_ERROR, "MemoryError")


@pytest.mark.parametrize("name", ["refused", "exit"])
def test_what_fails_on_a_full_disk_is_not_the_candidates_fault(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pool() as builder:
        assert isinstance(builder.build(jobs("good"))[0], Built)
        with pytest.raises(OSError, match="No space left"):
            builder.build(jobs("good-1", name, "good-2"))


def test_workers_live_on_and_are_sent_a_task_once() -> None:
    with pool() as builder:
        first = builder.build(jobs(*(f"a-{index}" for index in range(6))))
        again = builder.build(jobs(*(f"b-{index}" for index in range(6))))
    answers = [answer.trace_json for answer in [*first, *again] if isinstance(answer, Built)]
    workers = {answer.partition(" ")[0] for answer in answers}
    assert len(answers) == 12
    assert len(workers) == 2
    assert sum("with module" in answer for answer in answers) == 2


def test_quick_builds_travel_in_groups_and_others_alone() -> None:
    with pool() as builder:
        quick = builder.build(jobs(*(f"a-{index}" for index in range(16)), quick=True))
        few = builder.build(jobs("b-1", "b-2", "b-3", quick=True))
        full = builder.build(jobs("c-1", "c-2", "c-3"))
    sizes = [
        [item.trace_json.rpartition(" ")[2] for item in answers if isinstance(item, Built)]
        for answers in (quick, few, full)
    ]
    assert sizes == [["4"] * 4 + ["3"] * 6 + ["2"] * 2 + ["1"] * 4, ["1"] * 3, ["1"] * 3]


def test_workers_are_recycled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.measure.build_workers._BUILDS_PER_WORKER", 2)
    with pool() as builder:
        answers = builder.build(jobs(*(f"a-{index}" for index in range(10))))
    workers = {answer.trace_json.partition(" ")[0] for answer in answers if isinstance(answer, Built)}
    assert len(workers) >= 4


def test_closing_leaves_no_process() -> None:
    builder = pool()
    pids = [worker.child.process.pid for worker in builder._workers]
    builder.close()
    assert not any(pid and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
