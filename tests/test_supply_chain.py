"""What is installed: a bill of materials that lists it, and an audit that says what it looked at."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest

from service import __version__
from tests.serving import serving
from tests.test_project import ROOT, pins


class Audit(Protocol):
    SOURCES: Mapping[str, Sequence[str]]
    KNOWN_VULNERABLE: str

    def main(self, arguments: Sequence[str], sources: Mapping[str, Sequence[str]]) -> int: ...


@pytest.fixture(scope="module")
def audit() -> Audit:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Audit = module
    return made


@contextmanager
def advisories(known: Mapping[str, str]) -> Iterator[Sequence[str]]:
    """The options of a source that knows of one vulnerability in each of these packages, by name and version."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = asked["package"]["name"]
            body = b"{}"
            if known.get(name) == asked["version"]:
                ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
                affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges}]
                body = json.dumps({"vulns": [{"id": f"TEST-{name}", "affected": affected}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield osv_at(server.server_port)


def osv_at(port: int) -> Sequence[str]:
    return "--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/v1/query"


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.lock"
    pinned = {"anyio==4.1.0": "0" * 64, "zstandard==0.25.0": "1" * 64}
    path.write_text("".join(f"{pin} \\\n    --hash=sha256:{digest}\n" for pin, digest in pinned.items()))
    return path


def test_a_known_vulnerability_fails(audit: Audit, lock_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = dict([audit.KNOWN_VULNERABLE.split("==")])
    with advisories({**known, "zstandard": "0.25.0"}) as source:
        assert audit.main([str(lock_file)], {"these": source}) == 1
    told = capsys.readouterr().out
    assert "VULNERABLE zstandard 0.25.0: TEST-zstandard, fixed in 99" in told
    assert "some.lock against these: 2 packages, 1 known vulnerabilities" in told
    with advisories({**known, "zstandard": "0.24.0"}) as source:
        assert audit.main([str(lock_file)], {"these": source}) == 0
    assert "some.lock against these: 2 packages, 0 known vulnerabilities" in capsys.readouterr().out


def test_where_nothing_knows_of_anything_nothing_was_audited(
    audit: Audit, lock_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = osv_at(closed.getsockname()[1])
    with advisories({}) as mirror:
        assert audit.main([str(lock_file)], {"nobody": nobody, "a mirror": mirror}) == 0
    told = capsys.readouterr().out
    assert "nobody is out of reach" in told
    assert "a mirror gives no advisories here" in told
    assert "some.lock was NOT audited" in told
    with advisories(dict([audit.KNOWN_VULNERABLE.split("==")])) as source:
        assert audit.main([str(lock_file)], {"nobody": nobody, "these": source}) == 0
    assert "some.lock against these" in capsys.readouterr().out


def test_the_bill_of_materials_lists_every_pin_with_its_hashes(tmp_path: Path) -> None:
    made = tmp_path / "sbom.json"
    # What is installed is what runs this test: make has nothing to install first.
    installed = [f"--old-file=.venv/{name}" for name in ("installed", "installed-dev", "bin/python")]
    subprocess.run(["make", *installed, "sbom", f"SBOM={made}"], cwd=ROOT, check=True, capture_output=True)
    bill = json.loads(made.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"], root["type"]) == ("tessera", __version__, "application")
    listed = {(each["name"], each["version"]) for each in bill["components"]}
    assert listed == {(name, version) for (name, _), version in pins("requirements.lock").items()}
    for each in bill["components"]:
        assert each["purl"].startswith("pkg:pypi/"), each["name"]
        hashes = [found for reference in each["externalReferences"] for found in reference.get("hashes", [])]
        assert any(re.fullmatch(r"[0-9a-f]{64}", found["content"]) for found in hashes), each["name"]


def test_ci_makes_both() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make sbom" in script
    assert "make audit" in script
