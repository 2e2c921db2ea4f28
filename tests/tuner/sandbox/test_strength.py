"""What a machine has for confining, and what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import SandboxUnavailable
from tuner.sandbox.start import Policy, readable, require
from tuner.sandbox.strength import Strength


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"landlock_abi": 0}, "files are not protected"),
        ({"landlock_abi": 2}, "files are not protected"),
        ({"seccomp": False}, "network is not protected"),
        ({"own_user": False}, "processes are not limited"),
        ({"own_user": False, "is_root": False, "landlock_abi": 5}, "can be signalled"),
    ],
)
def test_what_is_missing_is_told(
    changes: dict[str, object], told: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Strength(**{"landlock_abi": 7, "seccomp": True, "own_user": True, "is_root": True, **changes})  # type: ignore[arg-type]
    assert told in " ".join(found.missing)
    monkeypatch.setattr("tuner.sandbox.start.strength", lambda: found)
    with pytest.raises(SandboxUnavailable, match=told):
        require("required")
    assert require("auto") is found


def test_secrets_that_all_programs_would_see_are_found(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Strength(landlock_abi=7, seccomp=True, own_user=True, is_root=True)
    monkeypatch.setattr("tuner.sandbox.start.strength", lambda: whole)
    assert require("required", Policy(work_dir=work_dir, secrets=(work_dir,))) is whole
    with pytest.raises(SandboxUnavailable, match="which confined processes must read"):
        require("required", Policy(work_dir=work_dir, secrets=(Path(readable()[0]) / "data",)))
