"""How long the dashboard's pages take with much in the database: 1,000 jobs, one of them with 10,000 trials.

    python benchmarks/dashboard.py [--jobs 1000] [--trials 10000] [--requests 40]

``server_p95_ms`` is what a page takes from request to last byte, over loopback, of a server that does nothing else;
``weight_kb`` what a browser with an empty cache fetches for it, compressed (gzip, level 6: the server itself sends it
plain). ``chart_ms`` is from opening the job's page in Chromium until its chart is drawn with every trial,
``first_chart_ms`` until anything is drawn.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rows import provenance
from service.access.principal import DEFAULT_PROJECT
from service.app import create_app
from service.jobs.commands import create_job
from service.schemas.jobs import JobCreate
from service.services import Services
from service.settings import Settings
from service.stores import JobReporter
from tests import models
from tests.acceptance import seed
from tests.service.tuning import claimed
from tests.signed_in import TestClient

_PORT = 8791
_SIZES = {"wide": (1440, 900), "phone": (390, 844)}


def fill(settings: Settings, *, jobs: int, trials: int, folder: Path) -> str:
    """Jobs that ended, one of them with many trials; the id of that one."""
    with TestClient(create_app(settings, engine=False)) as client:
        server = client.app.state.services  # type: ignore[attr-defined]
        assert isinstance(server, Services)
        services = server.of_project(DEFAULT_PROJECT, user="local")
        path = models.write(models.convolutional(), folder / "convolutional.onnx")
        sent = client.post(f"/api/v1/models?filename={path.name}", content=path.read_bytes())
        model_id = sent.json()["id"]
        large = ""
        for number in range(jobs):
            job_id = create_job(services, JobCreate(model_id=model_id, trials=trials if number == 0 else 16)).job.id
            assert claimed(services.database) == job_id
            reporter = JobReporter(services.database, job_id)
            count = trials if number == 0 else 16
            seed.tune(services, job_id, reporter, trials=count, total=count)
            seed.succeed(services, job_id, reporter, tuned_us=7460.0 + number)
            large = large or job_id
        seed.add_cost_models(services)
    return large


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    environment = {**os.environ, "TESSERA_DATA_DIR": str(settings.data_dir)}
    command = [sys.executable, "-m", "service", "serve", "--port", str(_PORT)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{_PORT}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx2.get(f"{url}/healthz", trust_env=False).raise_for_status()
                break
            except httpx2.HTTPError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def time_page(http: httpx2.Client, path: str, requests: int) -> dict[str, object]:
    """One row: the page's times and its weight."""
    page = http.get(path)
    page.raise_for_status()
    times_ms = []
    for _ in range(requests):
        started = time.perf_counter()
        http.get(path)
        times_ms.append((time.perf_counter() - started) * 1e3)
    files = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text))
    weight = len(gzip.compress(page.content, 6)) + sum(len(gzip.compress(data, 6)) for data in _files(http, files))
    times_ms.sort()
    return {
        "page": path,
        "server_median_ms": round(statistics.median(times_ms), 1),
        "server_p95_ms": round(times_ms[int(0.95 * (len(times_ms) - 1))], 1),
        "weight_kb": round(weight / 1024, 1),
    }


def _files(http: httpx2.Client, paths: set[str]) -> Iterator[bytes]:
    """Static files, and the modules that they import."""
    todo, seen = set(paths), set[str]()
    while todo:
        path = todo.pop()
        seen.add(path)
        answer = http.get(path)
        answer.raise_for_status()
        yield answer.content
        if path.endswith(".js"):
            found = re.findall(r'(?:from|import)\s*\(?"\./([^"]+)"', answer.text)
            todo |= {f"{path.rpartition('/')[0]}/{name}" for name in found} - seen


def time_chart(url: str, path: str, selector: str, headers: dict[str, str]) -> dict[str, float]:
    """From opening the page until ``selector`` is there, per width (ms): the best of three with an empty cache."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as playwright:
        chromium = next(
            (name for name in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(name).exists()), None
        )
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height) in _SIZES.items():
            times_ms = []
            for _ in range(3):
                context = browser.new_context(viewport={"width": width, "height": height}, extra_http_headers=headers)
                page = context.new_page()
                started = time.perf_counter()
                page.goto(url + path, wait_until="commit")
                page.wait_for_selector(selector)
                times_ms.append((time.perf_counter() - started) * 1e3)
                page.context.close()
            found[name] = round(min(times_ms), 0)
        browser.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dashboard-") as directory:
        folder = Path(directory)
        settings = Settings(data_dir=folder / "data")
        with redirect_stdout(StringIO()):  # what a job's process says
            large = fill(settings, jobs=given.jobs, trials=given.trials, folder=folder)
        headers = {"Authorization": f"Bearer {settings.token_path.read_text().strip()}"}
        with (
            serving(settings) as url,
            httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as http,
        ):
            others = [job["id"] for job in http.get("/api/v1/jobs?limit=3").json()["items"]]
            compared = "&".join(f"job={job_id}" for job_id in [large, *others])
            task = http.get(f"/api/v1/jobs/{large}/tasks").json()["items"][0]["key"]
            model = http.get("/api/v1/models").json()["items"][0]["id"]
            pages = [
                "/",
                "/?q=conv&state=succeeded",
                f"/jobs/{large}",
                f"/jobs/{large}/trials",
                f"/compare?{compared}",
                "/new",
                f"/jobs/{large}/tasks/{task}",
                "/models",
                f"/models/{model}",
                f"/models/{model}/graph",
                "/targets",
                "/records",
                "/records?which=all",
                "/cost-models",
                "/cost-models/host",
                "/settings",
            ]
            rows: list[dict[str, object]] = []
            for path in pages:
                rows.append(time_page(http, path, given.requests))
                shown = rows[-1]
                print(
                    f"{re.sub('[0-9a-f]{8}-[0-9a-f-]{27}', 'ID', path)[:60]:60} p95 {shown['server_p95_ms']} ms, "
                    f"{shown['weight_kb']} KiB",
                    flush=True,
                )
            first_chart_ms = time_chart(url, f"/jobs/{large}", '#chart[data-points]:not([data-points="0"])', headers)
            chart_ms = time_chart(url, f"/jobs/{large}", f'#chart[data-points="{given.trials}"]', headers)
    print(f"chart drawn after {first_chart_ms} ms, with all trials after {chart_ms} ms")
    result = {
        "server_p95_ms_max": max(float(str(row["server_p95_ms"])) for row in rows),
        "weight_kb_max": max(float(str(row["weight_kb"])) for row in rows),
        "first_chart_ms": first_chart_ms,
        "chart_ms": chart_ms,
        "rows": rows,
        **provenance(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
