"""Event streams that are cut fifty times during a job: every trial arrives, in order, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from service.api.schemas import JobCreate
from service.client import Tessera
from service.jobs import queue
from service.jobs.commands import create_job
from service.queries.trials import list_trials
from service.services import Services
from service.stores import JobReporter
from tests.acceptance import seed
from tests.acceptance.conftest import Site, Watch, open_page
from tests.acceptance.cutting import Cutter, cutting

pytestmark = pytest.mark.acceptance
CUTS = 50
FIRST = 32
# What the page's own listeners are given, noted before they are.
RECORD = """
window.received = [];
const listen = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (kind, ...rest) {
  if (kind === "trial") listen.call(this, kind, (event) => window.received.push(JSON.parse(event.data).number));
  return listen.call(this, kind, ...rest);
};
"""


@pytest.fixture
def tuning(empty_site: Site, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    services = empty_site.services
    models = seed.add_models(empty_site.url, tmp_path_factory.mktemp("models"))
    job = create_job(services, JobCreate(model_id=models["convolutional"], trials=5000)).job.id
    assert queue.claim_next(services.database) == job
    seed.tune(services, job, JobReporter(services.database, job), trials=FIRST, total=5000)
    return empty_site, job


@contextmanager
def measuring(services: Services, job: str, cutter: Cutter) -> Iterator[threading.Thread]:
    """Trials are written until the streams were cut often enough, and some more; then the job succeeds."""

    def run() -> None:
        number, after = FIRST, 0
        while after < 30 and number < 4000:
            number += 1
            seed.measure_one(services, job, number=number, latency_us=300.0)
            after += cutter.cuts >= CUTS
            time.sleep(0.02)
        seed.succeed(services, job, JobReporter(services.database, job), tuned_us=6000.0)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()
    assert cutter.cuts == CUTS


def stored(services: Services, job: str) -> list[int]:
    numbers = [trial.number for trial in list_trials(services.database, job, limit=10_000).items]
    assert len(numbers) > FIRST + CUTS
    return numbers


def test_the_page_misses_no_trial_and_shows_none_twice(tuning: tuple[Site, str], browser: Browser) -> None:
    site, job = tuning
    port = urlsplit(site.url).port
    assert port is not None
    with cutting(port, most=CUTS, seed=7) as (url, cutter):
        watch = Watch(host=urlsplit(url).netloc, expected=("ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING"))
        with open_page(browser, watch, base_url=url) as page:
            page.add_init_script(RECORD)
            page.goto(f"/jobs/{job}")
            expect(page.locator("#chart")).to_have_attribute("data-points", str(FIRST))
            with measuring(site.services, job, cutter) as thread:
                expect(page.locator("#link-state")).to_have_text("Reconnecting…", timeout=20_000)
                while thread.is_alive():
                    page.wait_for_timeout(200)
            numbers = stored(site.services, job)
            expect(page.locator("#download")).to_be_visible(timeout=20_000)
            expect(page.locator("#chart")).to_have_attribute("data-points", str(len(numbers)))
            assert page.evaluate("window.received") == numbers[FIRST:]
        watch.assert_clean()


def test_the_client_is_told_every_trial_once(tuning: tuple[Site, str], tmp_path: Path) -> None:
    site, job = tuning
    port = urlsplit(site.url).port
    assert port is not None
    with cutting(port, most=CUTS, seed=8) as (url, cutter), Tessera(url) as tessera:
        with measuring(site.services, job, cutter):
            told = [data["number"] for kind, data in tessera.job(job).watch() if kind == "trial"]
        assert told == stored(site.services, job)
