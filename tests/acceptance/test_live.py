"""What moves while somebody looks, and what stays where it is."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from service.jobs import queue
from service.jobs.commands import create_job
from service.jobs.states import JobState
from service.schemas.jobs import JobCreate
from service.stores import JobReporter
from tests.acceptance import seed
from tests.acceptance.conftest import Site, Watch, open_page, serve
from tests.service.tuning import claimed
from tuner.events import Log, Progress

pytestmark = pytest.mark.acceptance


@pytest.fixture
def tuning(empty_site: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """A server with one job that has measured 32 of 64 trials."""
    services = empty_site.services
    models = seed.add_models(empty_site.url, tmp_path_factory.mktemp("models"))
    job = create_job(services, JobCreate(model_id=models["convolutional"], trials=64)).job.id
    assert claimed(services.database) == job
    seed.tune(services, job, JobReporter(services.database, job), trials=32, total=64)
    return empty_site, job


def test_jobs_list_moves_in_place(tuning: tuple[Site, str], browser: Browser) -> None:
    site, job = tuning
    watch = Watch(host=site.host)
    services = site.services
    with open_page(browser, watch, base_url=site.url) as page:
        page.goto("/")
        row = page.locator(f"#job-{job}")
        expect(row).to_contain_text("32 of 64 trials")
        page.evaluate("window.sameDocument = true")
        progress = Progress(trials_done=48, trials_total=64, fraction=0.75, eta_s=20.0, estimated_us=9000.0)
        JobReporter(services.database, job).emit(progress)
        expect(row).to_contain_text("48 of 64 trials, about 20 s left")

        newer = create_job(services, JobCreate(model_id=seed_model(page), trials=8)).job.id
        notice = page.locator("#new-rows")
        expect(notice).to_have_text("Show 1 new job")
        assert page.locator("#jobs tr").count() == 1, "a new row must not move the others"
        assert page.evaluate("window.sameDocument") is True
        notice.click()
        expect(page.locator("#jobs tr").first).to_have_attribute("id", f"job-{newer}")
    watch.assert_clean()


def seed_model(page: Page) -> str:
    answer = page.request.get("/api/v1/models").json()
    return str(next(model["id"] for model in answer["items"] if model["name"] == "convolutional"))


def test_job_page_follows_its_stream(tuning: tuple[Site, str], browser: Browser) -> None:
    site, job = tuning
    watch = Watch(host=site.host)
    services = site.services
    reporter = JobReporter(services.database, job)
    with open_page(browser, watch, base_url=site.url) as page:
        page.goto(f"/jobs/{job}")
        chart = page.locator("#chart")
        expect(chart).to_have_attribute("data-points", "32")
        page.evaluate("window.sameDocument = true")
        seed.measure_one(services, job, number=33, latency_us=300.0)
        expect(chart).to_have_attribute("data-points", "33")
        reporter.emit(Log(message="a line that was not there before <b>&"))
        expect(page.locator("#log")).to_contain_text("a line that was not there before <b>&")
        reporter.emit(Progress(trials_done=40, trials_total=64, fraction=0.625, eta_s=70.0, estimated_us=6200.0))
        expect(page.locator("#run-line")).to_contain_text("40 of 64 trials, about 1 min 10 s left")
        expect(page.locator("#task-task0")).to_contain_text("300")
        seed.succeed(services, job, reporter, tuned_us=6000.0)
        expect(page.locator("#download")).to_be_visible()
        expect(page.locator("#answer-speed .a")).to_have_text("1.52× faster than ONNX Runtime")
        expect(page.locator("#cancel")).to_have_count(0)
        assert page.evaluate("window.sameDocument") is True
        assert page.locator("#log").inner_text().count("a line that was not there before") == 1
    watch.assert_clean()


def test_the_page_of_a_task_follows_its_job(tuning: tuple[Site, str], browser: Browser) -> None:
    site, job = tuning
    watch = Watch(host=site.host)
    with open_page(browser, watch, base_url=site.url) as page:
        page.goto(f"/jobs/{job}/tasks/task0")
        chart = page.locator("#chart")
        expect(chart).to_have_attribute("data-points", re.compile(r"[1-9]\d*"))
        before = int(chart.get_attribute("data-points") or 0)
        expect(page.locator("#schedule")).to_contain_text("Schedules are kept when the job ends")
        seed.measure_one(site.services, job, number=33, latency_us=300.0)
        expect(chart).to_have_attribute("data-points", str(before + 1))
        expect(page.locator("#task-answers")).to_contain_text("300 µs")
        seed.succeed(site.services, job, JobReporter(site.services.database, job), tuned_us=6000.0)
        expect(page.locator(".nest .loop-parallel").first).to_be_visible()
    watch.assert_clean()


def test_stream_resumes_after_a_restart_of_the_server(
    tmp_path: Path, browser: Browser, convolutional_model: Path
) -> None:
    first = ExitStack()
    url, services = first.enter_context(serve(tmp_path / "data"))
    job = create_job(services, JobCreate(model_id=seed.upload(url, convolutional_model), trials=64)).job.id
    assert claimed(services.database) == job
    seed.tune(services, job, JobReporter(services.database, job), trials=32, total=64)
    address = urlsplit(url)
    assert address.port is not None
    watch = Watch(host=address.netloc, expected=("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"))
    with open_page(browser, watch, base_url=url) as page:
        page.goto(f"/jobs/{job}")
        chart = page.locator("#chart")
        expect(chart).to_have_attribute("data-points", "32")
        page.evaluate("window.sameDocument = true")
        first.close()
        expect(page.locator("#link-state")).to_have_text("Reconnecting…")
        with serve(tmp_path / "data", port=address.port) as (_, restarted):
            seed.measure_one(restarted, job, number=33, latency_us=300.0)
            expect(chart).to_have_attribute("data-points", "33", timeout=15_000)
            expect(page.locator("#link-state")).to_be_hidden()
            assert page.evaluate("window.sameDocument") is True
    watch.assert_clean()


def test_job_is_cancelled_from_its_page(tuning: tuple[Site, str], browser: Browser) -> None:
    site, job = tuning
    watch = Watch(host=site.host)
    with open_page(browser, watch, base_url=site.url) as page:
        page.goto(f"/jobs/{job}")
        page.get_by_role("button", name="Cancel job").click()
        expect(page.locator("#job-sub .state")).to_have_text("Cancelling")
        queue.finish(site.services.database, job, JobState.CANCELLED)
        expect(page.locator("#job-sub .state")).to_have_text("Cancelled")
        expect(page.get_by_role("link", name="Tune again")).to_be_visible()
    watch.assert_clean()
