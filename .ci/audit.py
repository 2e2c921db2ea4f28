"""Known vulnerabilities of what a lock file pins: ``python .ci/audit.py requirements.lock``.

pip-audit asks PyPI, or else OSV. A source that does not know of an old vulnerability is none: mirrors may answer
without advisories. Where no source is in reach nothing is audited, which is said and is no failure. Exit status 1:
something that is pinned is vulnerable.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pip_audit

SOURCES: Mapping[str, Sequence[str]] = {
    "PyPI": ("--vulnerability-service", "pypi"),
    "OSV": ("--vulnerability-service", "osv"),
}
KNOWN_VULNERABLE = "jinja2==2.11.2"  # PYSEC-2021-66
_PATIENCE_S = "10"
_OPTIONS = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", _PATIENCE_S)


class OutOfReach(Exception):
    """A source gave no answer; the message is pip-audit's last line."""


def ask(lock_file: Path, source: Sequence[str]) -> list[dict[str, Any]]:
    """Of each package: ``name``, ``version`` and ``vulns``, or ``skip_reason``. Raises `OutOfReach`."""
    with tempfile.TemporaryDirectory() as cache:  # what was answered once is no answer
        command = [sys.executable, "-m", pip_audit.__name__, "--requirement", str(lock_file), "--cache-dir", cache]
        done = subprocess.run([*command, *_OPTIONS, *source], capture_output=True, text=True)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise OutOfReach((done.stderr.strip().splitlines() or ["no answer"])[-1][:200]) from None
    return packages


def has_advisories(source: Sequence[str]) -> bool:
    """Whether it knows of an old one. Raises `OutOfReach`."""
    with tempfile.TemporaryDirectory() as folder:
        lock_file = Path(folder, "known.lock")
        lock_file.write_text(f"{KNOWN_VULNERABLE}\n")
        return any(package.get("vulns") for package in ask(lock_file, source))


def audit(lock_file: Path, source: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Vulnerabilities and packages that the source does not know, a line each, and how many packages were asked for."""
    packages = ask(lock_file, source)
    found = [
        f"{package['name']} {package['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or 'none'}"
        for package in packages
        for known in package.get("vulns", [])
    ]
    unknown = [f"{package['name']}: {package['skip_reason']}" for package in packages if "skip_reason" in package]
    return found, unknown, len(packages)


def main(arguments: Sequence[str], sources: Mapping[str, Sequence[str]] = SOURCES) -> int:
    (lock_file,) = map(Path, arguments)
    for name, source in sources.items():
        try:
            if not has_advisories(source):
                print(f"audit: {name} gives no advisories here")
                continue
        except OutOfReach as error:
            print(f"audit: {name} is out of reach: {error}")
            continue
        found, unknown, count = audit(lock_file, source)
        for line in found:
            print(f"VULNERABLE {line}")
        for line in unknown:
            print(f"not audited: {line}")
        print(f"audit: {lock_file.name} against {name}: {count} packages, {len(found)} known vulnerabilities")
        return 1 if found else 0
    print(f"audit: {lock_file.name} was NOT audited: no source of advisories is in reach")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
