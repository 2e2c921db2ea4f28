"""The whole path as a person walks it: upload, preflight, tuning with a living chart, verified result, download.

A real ``tessera serve``, a real model, the real tuner.
"""

from __future__ import annotations

import hashlib
import os
import re
import selectors
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from service.settings import Settings
from tests import signed_in
from tests.acceptance.conftest import RESULTS, Watch, open_page

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(900)]

TRIALS = 24
_START_TIMEOUT_S = 60.0
# Under a minute on two free cores; the limit is for a machine that does other things too.
_JOB_TIMEOUT_MS = 600_000
_PREFLIGHT_TIMEOUT_MS = 120_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """``tessera serve`` on a free port and an empty data directory; its URL."""
    command = [sys.executable, "-c", "from service.cli import main; main()"]
    arguments = ["serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        url = _ready_url(process)
        signed_in.remember(url, Settings(data_dir=tmp_path / "data"))
        yield url
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(30)
        # A job process outlives its server by design; this test leaves nothing behind.
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        if process.stdout:
            process.stdout.close()


def _ready_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and process.poll() is None:
            if selector.select(timeout=1.0) and (found := re.search(r"http://\S+", process.stdout.readline())):
                return found.group()
    raise AssertionError(f"the server did not say that it is ready (exit status {process.poll()})")


def test_upload_tune_watch_download(server: str, browser: Browser, digits_model: Path, tmp_path: Path) -> None:
    folder = RESULTS / "whole-path"
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(host=urlsplit(server).netloc)
    with open_page(browser, watch, base_url=server) as page:
        page.goto("/")
        page.get_by_role("link", name="Upload a model").click()
        page.locator("#file").set_input_files(digits_model)
        expect(page.locator("h1")).to_have_text("Tune digits_cnn")
        expect(page.locator("#preflight")).to_contain_text("every operator is supported", timeout=_PREFLIGHT_TIMEOUT_MS)
        expect(page.locator("#preflight")).to_contain_text("MFLOP")
        page.screenshot(path=folder / "1-preflight.png", full_page=True)

        page.get_by_label("Number of trials").fill(str(TRIALS))
        page.get_by_role("button", name="Start tuning").click()
        page.wait_for_url("**/jobs/*")
        page.evaluate("window.sameDocument = true")
        gained = _watch_points(page, folder)
        assert page.evaluate("window.sameDocument") is True, "the page must not be loaded again while it is live"
        assert len(gained) >= 3, f"the chart should gain points while the job runs: {gained}"
        assert gained == sorted(gained)

        expect(page.locator("#job-sub .state")).to_have_text("Succeeded")
        expect(page.locator("#answer-right .a")).to_have_text("Verified")
        expect(page.locator("#answer-speed")).to_contain_text("Measured")
        expect(page.locator("#answer-speed")).to_contain_text("ONNX Runtime")
        expect(page.locator("#results")).to_contain_text("Untuned")
        assert page.locator("#tasks svg.tiles").count() > 0, "the best schedule of a task is drawn"
        page.wait_for_timeout(300)  # the last repaint, for the picture only
        page.screenshot(path=folder / "3-result.png", full_page=True)

        with page.expect_download() as download:
            page.locator("#download").click()
        bundle = tmp_path / download.value.suggested_filename
        download.value.save_as(bundle)
        _check_bundle(server, page.url.rsplit("/", 1)[1], bundle)
        _check_tasks(server, page.url.rsplit("/", 1)[1])
        page.goto("/")
        expect(page.locator("tbody .state")).to_have_text("Succeeded")
    with open_page(browser, watch, base_url=server, size="phone", scheme="dark") as page:
        page.goto("/")
        page.locator("tbody a").first.click()
        expect(page.locator("#chart")).to_have_attribute("data-points", re.compile(r"[1-9]\d*"))
        page.screenshot(path=folder / "4-result-phone-dark.png", full_page=True)
    watch.assert_clean()


def _watch_points(page: Page, folder: Path) -> list[int]:
    """The distinct numbers of points that the chart showed until the job ended."""
    seen = [0]
    deadline = time.monotonic() + _JOB_TIMEOUT_MS / 1000
    while page.locator("#job-sub .state-running, #job-sub .state-queued").count():
        assert time.monotonic() < deadline, page.locator("#log").inner_text()
        points = int(page.locator("#chart").get_attribute("data-points") or 0)
        if points != seen[-1]:
            seen.append(points)
            page.screenshot(path=folder / "2-tuning.png", full_page=True)
        page.wait_for_timeout(100)
    assert page.locator("#job-sub .state-succeeded").count(), page.locator("#job-error").inner_text()
    return seen


def _check_tasks(server: str, job_id: str) -> None:
    roofline = signed_in.get(f"{server}/api/v1/jobs/{job_id}").json()["roofline"]
    assert roofline["peak_gflops"] > 1
    assert roofline["bandwidth_gb_s"] > 0.1
    tasks = signed_in.get(f"{server}/api/v1/jobs/{job_id}/tasks").json()["items"]
    measured = [task for task in tasks if task["best_us"] is not None]
    assert measured
    for task in measured:
        # Above 100: what stays in a cache.
        assert 0 < task["percent_of_roofline"] < 10_000, task
    heaviest = max((task for task in measured if task["used"]), key=lambda task: task["share"])
    assert heaviest["untuned_us"] > heaviest["best_us"]


def _check_bundle(server: str, job_id: str, bundle: Path) -> None:
    artifacts = signed_in.get(f"{server}/api/v1/jobs/{job_id}/artifacts").json()["items"]
    told = next(artifact for artifact in artifacts if artifact["kind"] == "bundle")
    assert bundle.name == told["filename"]
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() == told["sha256"]
    with tarfile.open(bundle) as archive:
        assert {"module.so", "manifest.json", "run.py", "samples.npz"} <= set(archive.getnames())
