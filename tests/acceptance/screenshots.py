"""``make screenshots``: small real jobs on a server of its own, and every page photographed into docs/images.

Needs Chromium, like the tests of the pages. Takes about five minutes on two cores.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, expect, sync_playwright

from service.cli.digits import write_samples
from service.client import Job, Tessera
from service.embedded import serve_embedded
from service.settings import Settings
from tests import signed_in
from tests.acceptance.conftest import CHROMIUM, FLAGS, SIZES, Watch, open_page

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
IMAGES = ROOT / "docs" / "images"
JOB_TIMEOUT_S = 600.0
# What of a long page is worth its bytes.
_TALLEST_PX = 1500
# Of these pages, a part that lies farther down.
_PARTS = {"job-memory": "section[aria-labelledby=h-memory]"}
_QUALITY = 82
_SCALE = {"wide": 1, "phone": 2}

# Name of the picture → address. {first} and {second} are jobs of one model, {windows} has a memory limit.
PICTURES = {
    "job-running": "/jobs/{second}",  # halfway
    "jobs": "/",
    "new": "/new",
    "start": "/new?model={model}",
    "job": "/jobs/{second}",
    "job-memory": "/jobs/{windows}",
    "trials": "/jobs/{second}/trials",
    "compare": "/compare?job={first}&job={second}",
    "models": "/models",
    "targets": "/targets",
    "records": "/records",
    "cost-models": "/cost-models",
    "cost-model": "/cost-models/host",
    "settings": "/settings",
}
OTHERWISE = (
    ("jobs", "phone", "light"),
    ("job", "phone", "light"),
    ("start", "phone", "light"),
    ("job", "wide", "dark"),
)


def name_of(picture: str, size: str, scheme: str) -> str:
    """Wide and light go without saying."""
    return "-".join([picture, *({size, scheme} - {"wide", "light"})]) + ".webp"


def photograph(page: Page, picture: str, name: str, *, size: str) -> None:
    """The page from its top, or a part of it, as WebP: a third of a PNG's size."""
    width, top, height = SIZES[size][0], 0.0, float(page.evaluate("document.documentElement.scrollHeight"))
    if picture in _PARTS and (box := page.locator(_PARTS[picture]).bounding_box()):
        top, height = box["y"] - 16, box["height"] + 32
    height = min(height, _TALLEST_PX)
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": _SCALE[size]}
    shot = page.context.new_cdp_session(page).send(
        "Page.captureScreenshot",
        {"format": "webp", "quality": _QUALITY, "captureBeyondViewport": True, "clip": clip},
    )
    path = IMAGES / name
    path.write_bytes(base64.b64decode(shot["data"]))
    print(f"{path.relative_to(ROOT)}: {width}×{height:.0f} px, {path.stat().st_size / 1000:.0f} kB", flush=True)


def look(browser: Browser, url: str, shots: dict[str, str], *, size: str = "wide", scheme: str = "light") -> None:
    """Visits the addresses, by picture; a page that complains is not photographed."""
    watch = Watch(host=urlsplit(url).netloc)
    with open_page(browser, watch, base_url=url, size=size, scheme=scheme, scale=_SCALE[size]) as page:
        for picture, address in shots.items():
            page.goto(address)
            if picture.startswith("job-") or picture == "job":
                expect(page.locator("#chart canvas")).to_be_visible()
            elif picture == "start":
                expect(page.locator("#preflight .preflight-grid")).to_be_visible(timeout=120_000)
            watch.assert_clean()
            photograph(page, picture, name_of(picture, size, scheme), size=size)


def halfway(job: Job) -> None:
    """Waits until the job has measured half of its trials."""
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while job.refresh().info.progress.fraction < 0.5 and not job.done:
        assert time.monotonic() < deadline, f"{job} is too slow"
        time.sleep(0.2)


def filter_model(folder: Path) -> Path:
    """An image filter that sliding windows are for."""
    path = folder / "filter.onnx"
    arguments = ["--rows", "240", "--columns", "320", "--out", str(path)]
    subprocess.run([sys.executable, str(EXAMPLES / "build_filter.py"), *arguments], check=True)
    return path


def run(browser: Browser, url: str, folder: Path) -> None:
    with Tessera(url, token=signed_in.token_of(url)) as tessera:
        digits = tessera.upload(EXAMPLES / "digits_cnn.onnx")
        samples = folder / "digits.npz"
        write_samples(EXAMPLES / "digits_test.npz", samples, input_name=digits.inputs[0].name, count=8)
        first = tessera.tune(digits, trials=64, samples=samples, seed=1).wait(timeout_s=JOB_TIMEOUT_S)
        second = tessera.tune(digits, trials=320, samples=samples, seed=2)
        halfway(second)
        look(browser, url, {"job-running": PICTURES["job-running"].format(second=second.id)})
        second.wait(timeout_s=JOB_TIMEOUT_S)
        tessera.tune(digits, target="raspberry-pi-4", measure="none").wait(timeout_s=JOB_TIMEOUT_S)
        windows = tessera.tune(filter_model(folder), trials=48, memory_limit_bytes=2 * 1024**2)
        windows.wait(timeout_s=JOB_TIMEOUT_S)
        ids = {"model": digits.id, "first": first.id, "second": second.id, "windows": windows.id}
    addresses = {picture: address.format_map(ids) for picture, address in PICTURES.items() if picture != "job-running"}
    look(browser, url, addresses)
    for picture, size, scheme in OTHERWISE:
        look(browser, url, {picture: addresses[picture]}, size=size, scheme=scheme)


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tessera-screenshots-") as temporary, sync_playwright() as playwright:
        settings = Settings(data_dir=Path(temporary) / "data")
        with serve_embedded(settings) as url:
            signed_in.remember(url, settings)
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
            run(browser, url, Path(temporary))
            browser.close()


if __name__ == "__main__":
    main()
