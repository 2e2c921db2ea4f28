"""What is served as it lies: vendored files are the published ones, and nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from service.dashboard.pages import STATIC_DIR
from tests import signed_in
from tests.acceptance.conftest import Site

VENDOR = STATIC_DIR / "vendor"
TEMPLATES = STATIC_DIR.parent / "templates"


def test_vendored_files_have_the_hashes_of_their_list() -> None:
    listed = dict(
        reversed(line.split())
        for line in (VENDOR / "README").read_text().splitlines()
        if re.match(r"[0-9a-f]{64} ", line)
    )
    present = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    del present["README"]
    assert present == listed


def test_every_vendored_library_has_its_licence() -> None:
    named = set(re.findall(r"\((\S+\.LICENSE)\)", (VENDOR / "README").read_text()))
    assert named == {path.name for path in VENDOR.glob("*.LICENSE")} != set()


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_templates_have_nothing_inline_and_nothing_foreign(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text), "an inline script is refused by the content policy"
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", text)
    assert not re.search(r"https?://", text)


def test_pages_carry_a_strict_policy_and_are_not_stored(site: Site) -> None:
    for path in ("/", "/new", "/jobs/none", f"/jobs/{site.jobs['running']}"):
        headers = signed_in.get(site.url + path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_changes_asked_for_by_other_sites_are_refused(site: Site) -> None:
    url = f"{site.url}/jobs/{site.jobs['running']}/cancel"
    answer = signed_in.post(url, headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 403
    assert signed_in.get(f"{site.url}/api/v1/jobs/{site.jobs['running']}").json()["state"] == "running"
