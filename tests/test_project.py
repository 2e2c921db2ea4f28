"""What a fresh checkout promises: lock files, licence, make targets."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+?)(?: ; (?P<marker>[^\\]+?))? \\$", re.MULTILINE)
LOCKS = ["requirements.lock", "requirements-dev.lock"]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def pins(name: str) -> dict[tuple[str, str], str]:
    """Versions by package and marker: one package may be pinned twice, for different Pythons."""
    return {(match["name"], match["marker"] or ""): match["version"] for match in PIN.finditer(read(name))}


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_hold_no_addresses(name: str) -> None:
    assert not re.search(r"https?:|file:|--(extra-)?index|--find-links|/", read(name).replace("(pyproject.toml)", ""))


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_bring_no_gpu_library(name: str) -> None:
    names = {package for package, _ in pins(name)}
    assert len(names) > 40
    found = {package for package in names if re.search(r"nvidia|cuda|cupy|^torch|triton|rocm", package)}
    # The tests compile kernels: the extra [cuda] brings a compiler, which needs no GPU.
    compiler = {"cuda-bindings", "cuda-pathfinder", "nvidia-cuda-nvrtc"}
    assert found == (compiler if name == "requirements-dev.lock" else set())
    on_linux = {
        package
        for package, marker in pins(name)
        if not marker or Marker(marker).evaluate({"sys_platform": "linux", "python_full_version": "3.11.2"})
    }
    assert "xgboost" not in on_linux
    assert "xgboost-cpu" in on_linux


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_a_hash_and_nothing_else_is_listed(name: str) -> None:
    text = read(name)
    starts = [line for line in text.splitlines() if line and not line[0].isspace() and not line.startswith("#")]
    assert len(starts) == len(PIN.findall(text))
    for block in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]


def test_both_lock_files_agree() -> None:
    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    # What only some systems need may be needed by all of those who develop.
    assert {pin: dev.get(pin, dev.get((pin[0], ""))) for pin in run} == run


def test_every_dependency_is_locked_within_its_range() -> None:
    locked = pins("requirements.lock")
    extras = project()["optional-dependencies"]
    # The extra [cuda] is in the other file: its tests need it.
    for text in [*project()["dependencies"], *extras["server"], *extras["postgresql"], *extras["s3"], *extras["ray"]]:
        requirement = Requirement(text)
        versions = [version for (name, _), version in locked.items() if name == canonicalize_name(requirement.name)]
        assert versions, f"{requirement.name} is not locked: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{text}: make lock"


def test_the_licence_is_apache() -> None:
    assert project()["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in read("LICENSE")


def test_make_lists_the_commands_of_the_readme() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    used = set(re.findall(r"(?:^|`)make ([a-z]+)\b", read("README.md") + read("CONTRIBUTING.md"), re.MULTILINE))
    assert {"demo", "test", "serve", "lint", "lock", "format"} <= used
    for target in used:
        assert re.search(rf"make {target}\b", shown), target


def test_ci_runs_lint_and_the_readmes_own_test_command() -> None:
    script = read(".ci/run")
    assert "make lint" in script
    assert "suite test " in script
    assert 'make "$1"' in script
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
