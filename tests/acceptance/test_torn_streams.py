"""Event streams that break: a page and a Python client have every event of the database, in order, once each."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from service.client import Tessera
from service.jobs.commands import create_job
from service.queries.jobs import list_events
from service.queries.trials import list_trials
from service.schemas.jobs import JobCreate
from service.services import ProjectServices
from service.stores import JobReporter
from tests import signed_in
from tests.acceptance import seed
from tests.acceptance.conftest import Site, Watch, open_page, serve
from tests.acceptance.cutting import cutting
from tests.service.tuning import claimed
from tuner.events import Log, Progress

pytestmark = pytest.mark.acceptance

CUTS = 50
BEFORE, TRIALS = 32, 400
# Between two trials, so that a job lasts for some cuts: its streams are cut a few times a second.
_PACE_S = 0.02
_WITHIN_S = 40.0
BROKEN = ("ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_REFUSED")


def start(services: ProjectServices, model: str) -> str:
    """A running job with its first trials."""
    job = create_job(services, JobCreate(model_id=model, trials=TRIALS)).job.id
    assert claimed(services.database) == job
    seed.tune(services, job, JobReporter(services.database, job), trials=BEFORE, total=TRIALS)
    return job


@contextmanager
def tuning(services: ProjectServices, job: str, torn: threading.Event) -> Iterator[None]:
    """A job that measures meanwhile, at least until the stream was torn often enough, and then succeeds."""
    ended: list[bool] = []
    leave = threading.Event()

    def measure() -> None:
        rng, reporter = random.Random(7), JobReporter(services.database, job)
        number = BEFORE
        while (number < TRIALS or not torn.is_set()) and not leave.wait(_PACE_S):
            number += 1
            seed.measure_one(services, job, number=number, latency_us=rng.uniform(300.0, 900.0))
            if number % 8 == 0:
                # Among them characters that end a line elsewhere than in event streams.
                reporter.emit(Log(message=f"batch {number // 8}: 8 trials\u2028\x85\x1c of dense"))
                reporter.emit(
                    Progress(trials_done=number, trials_total=TRIALS, fraction=0.5, eta_s=9.0, estimated_us=9.0)
                )
        seed.succeed(services, job, reporter, tuned_us=6000.0)
        ended.append(True)

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join(_WITHIN_S)
        assert ended, "the job did not end"


def stored(services: ProjectServices, job: str) -> list[list[Any]]:
    """Number, task, latency and estimate (µs, to a nanosecond) of every trial."""
    return [
        [trial.number, trial.task, *(us and round(us, 3) for us in (trial.latency_us, trial.estimated_us))]
        for trial in list_trials(services.database, job, limit=100_000).items
    ]


def drawn(page: Page) -> list[list[Any]]:
    """The same of the points that the chart was given last."""
    return page.evaluate(  # type: ignore[no-any-return]
        """async () => {
            const { Trials } = await import("/static/trials.js");
            const view = Trials.prototype.ofNetwork;
            let shown;
            Trials.prototype.ofNetwork = function (...of) {
                return (shown = view.apply(this, of));
            };
            document.getElementById("chart-task").dispatchEvent(new Event("change"));
            Trials.prototype.ofNetwork = view;
            const rounded = (us) => (us == null ? null : Math.round(1000 * us) / 1000);
            const figures = (trial) => [rounded(trial.latency_us), rounded(trial.estimated_us)];
            return shown.points.map((trial, at) => [shown.x[at], trial.task, ...figures(trial)]);
        }"""
    )


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def test_a_page_has_every_point_of_a_stream_that_is_cut_fifty_times(
    empty_site: Site, browser: Browser, convolutional_model: Path
) -> None:
    services = empty_site.services
    job = start(services, seed.upload(empty_site.url, convolutional_model))
    with cutting(port_of(empty_site.url), cuts=CUTS, seed=11) as cutter:
        signed_in.also_at(cutter.url, empty_site.url)
        watch = Watch(host=urlsplit(cutter.url).netloc, expected=BROKEN)
        with open_page(browser, watch, base_url=cutter.url) as page:
            page.goto(f"/jobs/{job}")
            expect(page.locator("#chart")).to_have_attribute("data-points", str(BEFORE))
            page.evaluate("window.sameDocument = true")
            with tuning(services, job, cutter.done):
                expect(page.locator("#download")).to_be_visible(timeout=_WITHIN_S * 1000)
            assert cutter.cuts == CUTS
            trials = stored(services, job)
            assert len(trials) >= TRIALS
            expect(page.locator("#chart")).to_have_attribute("data-points", str(len(trials)))
            assert drawn(page) == trials
            lines = [event.data["message"] for event in list_events(services.database, job, limit=10_000, kind="log")]
            assert len(lines) > 60
            assert page.locator("#log > span").all_text_contents() == [f"{line}\n" for line in lines]
            expect(page.locator("#link-state")).to_be_hidden()
            assert page.evaluate("window.sameDocument") is True
        watch.assert_clean()


def test_a_client_has_every_event_of_a_stream_that_is_cut_fifty_times(
    empty_site: Site, convolutional_model: Path
) -> None:
    services = empty_site.services
    job = start(services, seed.upload(empty_site.url, convolutional_model))
    token = signed_in.token_of(empty_site.url)
    cut = cutting(port_of(empty_site.url), cuts=CUTS, seed=12)
    with cut as cutter, Tessera(cutter.url, token=token) as tessera:
        watched = tessera.job(job)
        with tuning(services, job, cutter.done):
            events = list(watched.watch())
        assert cutter.cuts == CUTS
    told = [(event.kind, event.data) for event in list_events(services.database, job, limit=10_000)]
    assert len(told) > TRIALS
    assert events == told
    assert watched.state == "succeeded"


def test_a_client_waits_for_a_server_that_is_started_again(tmp_path: Path, convolutional_model: Path) -> None:
    first = ExitStack()
    url, services = first.enter_context(serve(tmp_path / "data"))
    job = start(services, seed.upload(url, convolutional_model))
    events: list[tuple[str, dict[str, Any]]] = []
    with Tessera(url, token=signed_in.token_of(url)) as tessera:
        watched = tessera.job(job)
        begun = threading.Event()

        def watch() -> None:
            for event in watched.watch():
                events.append(event)
                begun.set()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        assert begun.wait(10)
        first.close()
        with serve(tmp_path / "data", port=port_of(url)) as (_, restarted):
            seed.measure_one(restarted, job, number=BEFORE + 1, latency_us=300.0)
            seed.succeed(restarted, job, JobReporter(restarted.database, job), tuned_us=6000.0)
            thread.join(_WITHIN_S)
            assert not thread.is_alive()
            assert events == [(event.kind, event.data) for event in list_events(restarted.database, job)]
            assert watched.state == "succeeded"


def test_a_page_that_comes_between_record_and_event_has_the_trial_whole(
    empty_site: Site, browser: Browser, convolutional_model: Path
) -> None:
    services = empty_site.services
    job = start(services, seed.upload(empty_site.url, convolutional_model))
    # A batch is stored first; what its trials mean for the network is told then.
    seed.store_one(services, job, number=BEFORE + 1, latency_us=300.0)
    watch = Watch(host=empty_site.host)
    with open_page(browser, watch, base_url=empty_site.url) as page:
        page.goto(f"/jobs/{job}")
        expect(page.locator("#chart")).to_have_attribute("data-points", str(BEFORE + 1))
        assert drawn(page)[-1] == [BEFORE + 1, "task0", 300.0, None]
        seed.tell_one(services, job, number=BEFORE + 1, latency_us=300.0)
        JobReporter(services.database, job).emit(Log(message="and told"))
        expect(page.locator("#log")).to_contain_text("and told")
        assert drawn(page) == stored(services, job)
    watch.assert_clean()
