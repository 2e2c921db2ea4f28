"""Uploading, checking and starting through the pages, with scripts and without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from service.queries.jobs import get_job
from tests import models
from tests.acceptance import seed
from tests.acceptance.conftest import Site, Watch, open_page
from tests.acceptance.test_accessibility import barriers

pytestmark = pytest.mark.acceptance
# A preflight starts a process that imports TVM: seconds, and more on a busy machine.
PREFLIGHT_TIMEOUT_MS = 120_000


def test_bad_upload_shows_what_is_wrong_and_what_to_do(
    site: Site, browser: Browser, watch: Watch, tmp_path: Path
) -> None:
    bad = tmp_path / "notes.onnx"
    bad.write_bytes(b"these are not the bytes of a model")
    watch.expected = ("status of 400", "status of 422")
    with open_page(browser, watch, base_url=site.url) as page:
        page.goto("/new")
        page.locator("#file").set_input_files(bad)
        problem = page.locator("#problem")
        expect(problem).to_be_visible()
        expect(problem.locator("code")).to_have_text("not_onnx")
        expect(problem).to_contain_text("onnx.checker")
        expect(page.locator("#file")).to_be_enabled()
    watch.assert_clean()


def test_file_chosen_before_the_script_is_there_is_uploaded(site: Site, page: Page, tmp_path: Path) -> None:
    path = models.write(models.two_convolutions(seed=1), tmp_path / "early.onnx")  # its own bytes, so its own name
    held: list[Route] = []
    page.route("**/upload.js*", lambda route: held.append(route))
    page.goto("/new", wait_until="commit")
    page.locator("#file").set_input_files(path)
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    expect(page.locator("h1")).to_have_text("Tune early")


def test_dropped_file_is_uploaded(site: Site, page: Page, tmp_path: Path) -> None:
    path = models.write(models.two_convolutions(), tmp_path / "dropped.onnx")
    page.goto("/new")
    transfer = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.onnx"));
            return transfer;
        }""",
        list(path.read_bytes()),
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop.over")).to_be_visible()
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("h1")).to_have_text("Tune dropped")


def test_missing_sizes_are_asked_for_and_can_be_filled_in(site: Site, page: Page) -> None:
    page.goto(f"/new?model={site.models['dynamic_sides']}")
    refusal = page.locator("#preflight .notice-bad")
    expect(refusal.locator("code")).to_have_text("missing_dimensions", timeout=PREFLIGHT_TIMEOUT_MS)
    expect(refusal).to_contain_text("height")
    expect(refusal).to_contain_text("width")
    shape = page.get_by_label("image float32 batch×3×height×width")
    shape.fill("1x3x24×20")
    shape.press("Tab")
    expect(page.locator("#preflight .facts")).to_contain_text("1×3×24×20", timeout=PREFLIGHT_TIMEOUT_MS)
    page.get_by_role("button", name="Start tuning").click()
    page.wait_for_url("**/jobs/*")
    job = get_job(site.services.database, page.url.rsplit("/", 1)[1])
    assert job.input_shapes == {"image": [1, 3, 24, 20]}


def test_unsupported_operators_are_listed_all_at_once(site: Site, page: Page) -> None:
    page.goto(f"/new?model={site.models['unsupported']}")
    refusal = page.locator("#preflight .notice-bad")
    expect(refusal.locator("code")).to_have_text("unsupported_operators", timeout=PREFLIGHT_TIMEOUT_MS)
    rows = dict(zip(*[iter(page.locator("#preflight tbody td").all_inner_texts())] * 2, strict=True))
    assert rows == {"Celu": "2", "LSTM": "1"}


def test_time_budget_and_seed_reach_the_job(site: Site, page: Page) -> None:
    page.goto(f"/new?model={site.models['convolutional']}")
    page.get_by_label("Minutes of tuning").fill("2.5")
    expect(page.get_by_label("Time", exact=True)).to_be_checked()
    page.get_by_label("Seed").fill("41")
    page.get_by_role("button", name="Start tuning").click()
    page.wait_for_url("**/jobs/*")
    job = get_job(site.services.database, page.url.rsplit("/", 1)[1])
    assert (job.budget.trials, job.budget.time_limit_s, job.seed) == (None, 150.0, 41)


def test_the_slider_fills_the_memory_limit(site: Site, page: Page, tmp_path: Path) -> None:
    path = models.write(models.convolutional(channels=32, side=112), tmp_path / "wide.onnx")
    page.goto(f"/new?model={seed.upload(site.url, path)}")
    slider, field, note = page.locator("#memory-slider"), page.locator("#memory"), page.locator("#memory-note")
    expect(slider).to_be_visible(timeout=PREFLIGHT_TIMEOUT_MS)
    expect(slider).to_have_attribute("aria-valuetext", "no limit")
    expect(note).to_have_text("No limit.")
    slider.press("ArrowLeft")
    expect(field).to_have_value(re.compile(r"^\d+(\.\d+)? [KM]iB$"))
    expect(note).to_have_text(re.compile(r"^1 % less than the .* [KM]iB without windows\.$"))
    assert barriers(page) == []
    slider.press("End")
    expect(field).to_have_value("")
    slider.press("Home")
    least_bytes = float(slider.get_attribute("min") or 0)
    expect(note).to_contain_text("without windows")
    page.get_by_role("button", name="Check again").click()
    expect(page.locator("#checking")).to_be_hidden(timeout=PREFLIGHT_TIMEOUT_MS)
    chosen = slider.input_value()
    assert least_bytes <= float(chosen) < 1.01 * least_bytes, "a new check leaves what was chosen"
    field.fill("1 B")
    expect(note).to_contain_text("likely to refuse")
    field.fill(f"{least_bytes / 1024:.3f} KiB")
    page.get_by_role("button", name="Start tuning").click()
    page.wait_for_url("**/jobs/*")
    job = get_job(site.services.database, page.url.rsplit("/", 1)[1])
    assert job.memory_limit_bytes == pytest.approx(least_bytes, abs=1)


def test_the_budget_says_how_long_it_lasts(site: Site, page: Page) -> None:
    page.goto(f"/new?model={site.models['convolutional']}")
    note = page.locator("#budget-note")
    expect(note).to_have_text(re.compile(r"^512 trials: about \d+\s(s|min).*\.$"), timeout=PREFLIGHT_TIMEOUT_MS)
    page.get_by_label("Number of trials").fill("1")
    expect(note).to_have_text("1 trial: about 1 s.")
    page.get_by_label("Both, whichever ends first").check()
    page.get_by_label("Minutes of tuning").fill("5")
    expect(page.get_by_label("Both, whichever ends first")).to_be_checked()
    expect(note).to_contain_text("The trials end first.")
    page.get_by_label("Number of trials").fill("")
    expect(note).to_have_text("")


def test_wrong_budget_is_told_beside_the_form(site: Site, browser: Browser, watch: Watch) -> None:
    with open_page(browser, watch, base_url=site.url, scripts=False) as page:
        page.goto(f"/new?model={site.models['convolutional']}")
        page.evaluate("document.getElementById('start').noValidate = true")
        page.get_by_label("Number of trials").fill("0")
        page.get_by_role("button", name="Start tuning").click()
        expect(page.locator("#start-error")).to_contain_text("Trials: '0' is not a whole number from 1 to 1000000")
        expect(page.get_by_label("Number of trials")).to_have_value("0")


def test_everything_works_without_scripts(site: Site, browser: Browser, watch: Watch, tmp_path: Path) -> None:
    path = models.write(models.perceptron(hidden=48), tmp_path / "plain.onnx")
    with open_page(browser, watch, base_url=site.url, scripts=False) as page:
        page.goto("/new")
        page.locator("#file").set_input_files(path)
        page.get_by_role("button", name="Upload model").click()
        expect(page.locator("h1")).to_have_text("Tune plain")
        page.get_by_role("button", name="Check model").click()
        expect(page.locator("#preflight .preflight-grid")).to_be_visible(timeout=PREFLIGHT_TIMEOUT_MS)
        expect(page.locator("#memory-slider")).to_be_hidden()
        page.get_by_label("Memory limit").fill("2 MiB")
        page.get_by_label("Number of trials").fill("24")
        page.get_by_role("button", name="Start tuning").click()
        page.wait_for_url("**/jobs/*")
        expect(page.locator("#run-line")).to_contain_text("before it")
        assert page.locator(".needs-js:visible").count() == 0
        page.get_by_role("button", name="Cancel job").click()
        expect(page.locator("#job-sub .state")).to_have_text("Cancelled")
        page.goto(f"/jobs/{site.jobs['many']}")
        page.locator("#steps summary").click()
        expect(page.locator("#steps tbody tr").first).to_be_visible()
        with page.expect_download() as download:
            page.locator("#download").click()
        assert download.value.suggested_filename == "bundle-host.tar.gz"
    watch.assert_clean()


def test_bad_upload_without_scripts(site: Site, browser: Browser, watch: Watch, tmp_path: Path) -> None:
    bad = tmp_path / "notes.onnx"
    bad.write_bytes(b"these are not the bytes of a model")
    watch.expected = ("status of 400", "status of 422")
    with open_page(browser, watch, base_url=site.url, scripts=False) as page:
        page.goto("/new")
        page.locator("#file").set_input_files(bad)
        page.get_by_role("button", name="Upload model").click()
        expect(page.locator(".notice-bad code").first).to_have_text("not_onnx")
    watch.assert_clean()
