"""A real browser on a real server. Every page is watched: its console, its requests, its width."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from service.access.principal import DEFAULT_PROJECT
from service.app import create_app
from service.services import ProjectServices
from service.settings import Settings
from tests import signed_in
from tests.acceptance import seed

CHROMIUM = Path(os.environ.get("TESSERA_TEST_CHROMIUM", "/usr/bin/chromium"))
RESULTS = Path(__file__).resolve().parents[2] / "test-results"
SIZES = {"wide": (1440, 900), "phone": (390, 844)}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_START_TIMEOUT_S = 30.0


@dataclass
class Watch:
    """What a page did that it should not have done. Violations of the content policy are console errors."""

    host: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    # The browser itself reports an answer like 404 or 422 on the console, also where the page handles it.
    expected: tuple[str, ...] = ()

    def follow(self, page: Page) -> None:
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._request(request.url))

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.foreign.append(url)

    def assert_clean(self) -> None:
        unexpected = [text for text in self.errors if not any(known in text for known in self.expected)]
        assert unexpected == []
        assert self.foreign == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM} (Debian's package chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Site:
    """A server with a filled database: its address, its insides, and the ids of its jobs by what they show."""

    url: str
    services: ProjectServices
    jobs: dict[str, str]
    models: dict[str, str]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server without an engine for all tests of the pages: its jobs stand still unless a test moves them."""
    with serve(tmp_path_factory.mktemp("site")) as (url, services):
        models = seed.add_models(url, tmp_path_factory.mktemp("models"))
        yield Site(url=url, services=services, jobs=seed.add_jobs(services, models), models=models)


@pytest.fixture
def empty_site(tmp_path: Path) -> Iterator[Site]:
    """A server on which nothing happened yet."""
    with serve(tmp_path / "data") as (url, services):
        yield Site(url=url, services=services, jobs={}, models={})


@contextmanager
def serve(data_dir: Path, *, port: int = 0) -> Iterator[tuple[str, ProjectServices]]:
    settings = Settings(data_dir=data_dir)
    app = create_app(settings, engine=False)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        assert time.monotonic() < deadline, "the server did not start"
        thread.join(0.02)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    signed_in.remember(url, settings)
    try:
        yield url, app.state.services.of_project(DEFAULT_PROJECT, user="local")
    finally:
        server.should_exit = True
        thread.join(_START_TIMEOUT_S)


@pytest.fixture
def watch(site: Site) -> Watch:
    return Watch(host=site.host)


@pytest.fixture
def page(browser: Browser, site: Site, watch: Watch) -> Iterator[Page]:
    """A wide light page on the filled server; the test fails when it leaves an error on the console."""
    with open_page(browser, watch, base_url=site.url) as opened:
        yield opened
    watch.assert_clean()


@contextmanager
def open_page(
    browser: Browser,
    watch: Watch,
    *,
    base_url: str,
    size: str = "wide",
    scheme: str = "light",
    scripts: bool = True,
    scale: int = 1,
) -> Iterator[Page]:
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=base_url,
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        color_scheme="dark" if scheme == "dark" else "light",
        java_script_enabled=scripts,
        reduced_motion="reduce",
        is_mobile=size == "phone",
        has_touch=size == "phone",
    )
    context.set_default_timeout(15_000)
    # As a person does it, but for the page: the browser has the session's cookie from here on.
    signed = context.request.post("/sign-in", form={"token": signed_in.token_of(base_url)}, max_redirects=0)
    assert signed.status == 303, signed.text()
    opened = context.new_page()
    watch.follow(opened)
    try:
        yield opened
    finally:
        context.close()
