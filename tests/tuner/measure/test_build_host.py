"""Builds on other machines: what they build arrives, and a job loses nothing when they go."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
import tvm

from tests.schedules.functions import matmul_relu
from tests.tuner.measure.serves import library_serve
from tuner.measure.build_host import serve_all
from tuner.measure.build_workers import KEY_VARIABLE, BuildHost
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource
from tuner.measure.runner import LocalRunner
from tuner.records import FailureKind
from tuner.sandbox.start import Policy, start
from tuner.targets import host_target

KEY = "00" * 32
TESTS = Path(__file__).parents[2]


def jobs(folder: Path, *names: str) -> list[BuildJob]:
    source = TaskSource(key="t", module_json="{}")
    return [BuildJob(task=source, trace_json="[]", output=folder / f"{name}.so", quick=True) for name in names]


@contextlib.contextmanager
def build_host(worker: Callable[..., None]) -> Iterator[BuildHost]:
    """A host in this process whose workers misbehave on purpose."""

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            serve_all(listener, bytes.fromhex(KEY), worker=worker)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield BuildHost(host="127.0.0.1", port=listener.getsockname()[1], key=KEY)
        listener.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def build_host_process(folder: Path) -> Iterator[tuple[BuildHost, subprocess.Popen[bytes]]]:
    """A real one, confined."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = start(
            [sys.executable, "-m", "tuner.measure.build_host", str(listener.fileno())],
            Policy(work_dir=folder, read=(TESTS,), keeper=True),
            mode="auto",
            environment={KEY_VARIABLE: KEY},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,
        )
    with process:
        try:
            yield BuildHost(host="127.0.0.1", port=port, key=KEY), process
        finally:
            process.kill()


def pool_with(*hosts: BuildHost, timeout_s: float = 20.0) -> BuildPool:
    """One worker here, one behind each host."""
    return BuildPool(host_target(), workers=1, hosts=hosts, serve=library_serve, timeout_s=timeout_s)


def busy_here(pipe: Connection, target: dict[str, object], triple: str) -> None:
    """A worker of this machine that is never done: whatever is built is built elsewhere."""
    pipe.recv()
    signal.pause()


def test_what_a_host_builds_arrives_where_the_job_wants_it(tmp_path: Path) -> None:
    with (
        build_host(library_serve) as host,
        pool_with(host) as pool,
    ):
        assert pool.size == 2
        answers = pool.build(jobs(tmp_path, *(f"job-{index}" for index in range(12))))
    built = [answer for answer in answers if isinstance(answer, Built)]
    assert len(built) == 12
    assert {answer.library.parent for answer in built} == {tmp_path}
    assert all(answer.library.read_text() == answer.trace_json for answer in built)
    assert [answer.library.stem for answer in built] == [f"job-{index}" for index in range(12)]
    assert len({answer.trace_json for answer in built}) == 2  # by two processes


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("segfault", FailureKind.BUILD_ERROR, "SIGSEGV"),
        ("hang", FailureKind.BUILD_TIMEOUT, "longer than"),
        ("refused", FailureKind.BUILD_ERROR, "refused"),
    ],
)
def test_a_bad_candidate_fails_alone_and_the_host_stays(
    tmp_path: Path, name: str, kind: FailureKind, said: str
) -> None:
    with (
        build_host(library_serve) as host,
        pool_with(host, timeout_s=2.0) as pool,
    ):
        answers = pool.build(jobs(tmp_path, name, "good-1", f"{name}-2", "good-2", "good-3"))
        bad = [answer for answer in answers if isinstance(answer, Failure)]
        assert answers.index(bad[0]) == 0
        assert [failure.kind for failure in bad] == [kind, kind]
        assert all(said in failure.message for failure in bad)
        assert pool.size == 2


def test_what_a_host_had_when_it_died_is_built_by_others(tmp_path: Path) -> None:
    with (
        build_host_process(tmp_path / "host") as (host, process),
        pool_with(host) as pool,
    ):
        process.kill()
        answers = pool.build(jobs(tmp_path, *(f"job-{index}" for index in range(6))))
        assert all(isinstance(answer, Built) for answer in answers)
        assert pool.size == 1


def test_a_silent_host_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.measure.build_workers._SILENT_S", 0.5)
    with (
        build_host_process(tmp_path / "host") as (host, process),
        pool_with(host, timeout_s=0.5) as pool,
    ):
        process.send_signal(signal.SIGSTOP)
        answers = pool.build(jobs(tmp_path, *(f"job-{index}" for index in range(6))))
        assert all(isinstance(answer, Built) for answer in answers)
        assert pool.size == 1


def test_a_host_that_is_not_there_or_of_another_job_is_done_without(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        absent = BuildHost(host="127.0.0.1", port=unused.getsockname()[1], key=KEY)
        with build_host(library_serve) as host:
            foreign = BuildHost(host=host.host, port=host.port, key="11" * 32)
            with pool_with(absent, foreign) as pool:
                assert pool.size == 1
                assert isinstance(pool.build(jobs(tmp_path, "job"))[0], Built)


def test_a_host_ends_with_its_parent_and_its_workers_with_it(tmp_path: Path) -> None:
    with (
        build_host_process(tmp_path / "host") as (host, process),
        pool_with(host) as pool,
    ):
        assert pool.size == 2
        family = psutil.Process(process.pid).children(recursive=True)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
        assert psutil.wait_procs(family, timeout=10)[1] == []


@pytest.mark.slow
def test_a_library_of_another_machine_is_timed_here(tmp_path: Path) -> None:
    mod = tvm.IRModule({"main": matmul_relu()})
    source = TaskSource(key="matmul", module_json=tvm.ir.save_json(mod))
    job = BuildJob(task=source, trace_json=None, output=tmp_path / "matmul.so", repacked_weights=False)
    with (
        build_host_process(tmp_path / "host") as (host, _),
        BuildPool(host_target(), workers=1, hosts=[host], serve=busy_here, timeout_s=60) as pool,
    ):
        # The first of two is for this machine, which never builds it.
        stuck = replace(job, output=tmp_path / "stuck.so")
        built = pool.build([stuck, job], timeout_s=20)[1]
    assert isinstance(built, Built)
    with LocalRunner(threads=1) as runner:
        (timed,) = runner.time([built], best_us=None)
    assert not isinstance(timed, Failure)
    assert timed.latency_us > 0
