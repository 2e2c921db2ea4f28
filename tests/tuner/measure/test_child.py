"""Children come, whatever was done to the server that forks them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from tuner.measure import child
from tuner.measure.child import Child, fork_server


def says_its_pid(pipe: Connection) -> None:
    pipe.send(os.getpid())
    pipe.recv()


def ends(pipe: Connection, status: int) -> None:
    os._exit(status)


def kills_itself(pipe: Connection) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(child, "_SAYS_WITHIN_S", 1.0)
    Child(says_its_pid).kill()  # the fork server has paid its imports
    monkeypatch.setattr(child, "_FORKS_WITHIN_S", 10.0)
    yield
    monkeypatch.undo()
    Child(says_its_pid).kill()  # and there is one for the tests that follow


@pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL])
def test_a_fork_server_that_does_not_answer_is_replaced(quick: None, what: signal.Signals) -> None:
    first = Child(says_its_pid)
    assert first.pipe.recv() > 0
    stopped = fork_server.pid
    assert stopped is not None
    os.kill(stopped, what)
    second = Child(says_its_pid)
    assert second.pipe.poll(60)
    assert second.pipe.recv() > 0
    assert fork_server.pid != stopped
    first.kill()
    second.kill()


def test_how_a_child_ended_is_told() -> None:
    for serve, arguments, cause in ((ends, (3,), "exited with status 3"), (kills_itself, (), "died by SIGSEGV")):
        made = Child(serve, *arguments)
        assert made.cause_of_death() == cause
        made.kill()


def test_a_child_has_no_descriptor_of_another() -> None:
    first, second = Child(says_its_pid), Child(says_its_pid)
    pids = [first.pipe.recv(), second.pipe.recv()]
    first.pipe.close()  # which the first one would not notice if the second one had its end too
    assert first.process.exit_code(within_s=30) == 0
    assert os.path.exists(f"/proc/{pids[1]}")
    first.process.close()
    second.kill()
