from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner import priority
from tuner.priority import session_niceness, set_session_niceness, yield_as_we_do


@pytest.fixture
def session() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        yield child.pid
        child.kill()


def test_a_session_is_as_nice_as_it_was_made(session: int) -> None:
    before = session_niceness(session)
    set_session_niceness(session, 5)
    assert session_niceness(session) == (None if before is None else 5)


def test_nothing_happens_to_what_has_ended(session: int) -> None:
    gone = session + (1 << 22)  # more than there can be
    set_session_niceness(gone, 5)
    assert session_niceness(gone) is None


@pytest.mark.parametrize("text", ["", None], ids=["in the machine's first session", "no such groups"])
def test_without_a_group_nothing_is_passed_on(
    text: str | None, session: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "autogroup"
    if text is not None:
        ours.write_text(text)
    group = priority._group
    monkeypatch.setattr(priority, "_group", lambda pid: ours if pid == os.getpid() else group(pid))
    before = session_niceness(session)
    yield_as_we_do(session)
    assert session_niceness(os.getpid()) is None
    assert session_niceness(session) == before
