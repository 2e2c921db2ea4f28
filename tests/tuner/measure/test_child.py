"""Children come, whatever was done to the server that forks them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection

import pytest

from tuner.measure import child
from tuner.measure.child import Child


def says_its_pid(pipe: Connection) -> None:
    pipe.send(os.getpid())
    pipe.recv()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(child, "_SAYS_WITHIN_S", 1.0)
    Child(says_its_pid).kill()  # the fork server has paid its imports
    monkeypatch.setattr(child, "_FORKS_WITHIN_S", 3.0)
    yield
    monkeypatch.undo()
    Child(says_its_pid).kill()  # and there is one for the tests that follow


def fork_server() -> int:
    pid: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


@pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL])
def test_a_fork_server_that_does_not_answer_is_replaced(quick: None, what: signal.Signals) -> None:
    first = Child(says_its_pid)
    assert first.pipe.recv() > 0
    os.kill(stopped := fork_server(), what)
    second = Child(says_its_pid)
    assert second.pipe.poll(60)
    assert second.pipe.recv() > 0
    assert fork_server() != stopped
    first.kill()
    second.kill()
