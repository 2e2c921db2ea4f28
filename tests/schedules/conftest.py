"""Golden files: what a rule makes of a function, as TVMScript, updated only when asked to."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
UPDATE = "pytest tests/schedules --update-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files of tests/schedules anew")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: ``text`` must equal the file of that name; a missing file fails.

    The option exists when pytest is given this folder: it reads no deeper conftest.py before its arguments.
    """
    update = bool(request.config.getoption("--update-golden", default=False))

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        text = text.rstrip() + "\n"
        if update:
            path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"There is no golden file {path.name}. Write it with: {UPDATE}")
        expected = path.read_text()
        if text != expected:
            lines = difflib.unified_diff(expected.splitlines(), text.splitlines(), path.name, "now", lineterm="")
            pytest.fail("\n".join([f"The schedule changed. If that is meant: {UPDATE}", *lines]))

    return check
