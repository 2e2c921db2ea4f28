"""The page of a model, and its graph, which Netron draws in a real browser without a call to anywhere else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from playwright.sync_api import Browser, Page, expect

from service.dashboard import netron
from tests import models as onnx_models
from tests import signed_in
from tests.acceptance import seed
from tests.acceptance.conftest import RESULTS, SIZES, Site, Watch, open_page

pytestmark = pytest.mark.acceptance
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.fixture(scope="module")
def published(site: Site) -> Iterator[tuple[str, onnx.ModelProto]]:
    """A network of 105 nodes, its id and its content; deleted again, so that other tests find what they know."""
    path = LIGHT / "light_squeezenet.onnx"
    model_id = seed.upload(site.url, path)
    yield model_id, onnx.load(path)
    signed_in.delete(f"{site.url}/api/v1/models/{model_id}").raise_for_status()


def operators(page: Page) -> Counter[str]:
    """What the drawing shows, by operator."""
    return Counter(page.locator("#canvas .node-item-type text").all_text_contents())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_graph_of_a_published_network_is_drawn_and_nothing_calls_out(
    published: tuple[str, onnx.ModelProto], site: Site, browser: Browser, watch: Watch, size: str, scheme: str
) -> None:
    model_id, model = published
    with open_page(browser, watch, base_url=site.url, size=size, scheme=scheme) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"/models/{model_id}/graph")
        expect(page.get_by_role("button", name="Find")).to_be_enabled(timeout=30_000)
        assert operators(page) == Counter(node.op_type for node in model.graph.node)
        expect(page.locator("#canvas .edge-path")).not_to_have_count(0)
        expect(page.locator("#canvas .node-item-type").first).to_be_visible()
        expect(page.locator("#graph-loading")).to_be_hidden()
        expect(page.locator("#sidebar")).to_be_hidden()
        page.screenshot(path=RESULTS / "pages" / f"graph-{size}-{scheme}.png")
        page.get_by_role("button", name="Model properties").click()
        expect(page.locator("#sidebar")).to_contain_text("ONNX v3")
        page.screenshot(path=RESULTS / "pages" / f"graph-properties-{size}-{scheme}.png")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#sidebar")).to_be_hidden()
        page.get_by_role("checkbox", name="Horizontal").check()
        expect(page.locator("#canvas .node-item-type").first).to_be_visible()
        assert sum(operators(page).values()) == len(model.graph.node)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert all(url.startswith((f"{site.url}/", f"blob:{site.url}/", "data:")) for url in asked)
    assert {f"{site.url}/netron/{netron.version()}/{name}" for name in ("view.js", "onnx.js", "worker.js")} <= set(
        asked
    )
    watch.assert_clean()


def test_tensors_documentation_and_search_keep_the_policy(site: Site, page: Page) -> None:
    page.goto(f"/models/{site.models['convolutional']}/graph")
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".sidebar-find-content li").first).to_be_visible(timeout=30_000)
    page.get_by_placeholder("Search").fill("max_p")
    expect(page.locator(".sidebar-find-content li").first).to_contain_text("max_pool")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("checkbox", name="Attributes").check()
    expect(page.locator("#canvas")).to_contain_text("pads")
    page.locator("#canvas .node-item-type", has_text="Conv").first.click()
    sidebar = page.locator("#sidebar")
    expect(sidebar).to_contain_text("conv.weight")
    sidebar.locator(".sidebar-item-value", has_text="Conv").locator(".sidebar-item-value-expander").first.click()
    expect(sidebar).to_contain_text("The convolution operator consumes an input tensor")
    page.get_by_role("button", name="Close").click()
    page.locator("#canvas .node-item-type", has_text="Conv").first.click()
    sidebar.locator(".sidebar-item-value", has_text="conv.weight").locator(".sidebar-item-value-button").click()
    expect(sidebar).to_contain_text("Tensor Properties")
    value = sidebar.locator(".sidebar-item-value", has=page.locator(".sidebar-item-value-button"))
    value.locator(".sidebar-item-value-button").click()
    with page.expect_download() as download:
        value.locator(".sidebar-item-value-button-context").click()
    saved = np.load(download.value.path(), allow_pickle=False)
    np.testing.assert_array_equal(saved, numpy_helper.to_array(onnx_models.convolutional().graph.initializer[0]))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save SVG").click()
    assert download.value.suggested_filename == "convolutional.svg"
    assert "<svg" in download.value.path().read_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_dark_colours_of_the_graph_follow_the_pages_theme(site: Site, page: Page) -> None:
    page.goto(f"/models/{site.models['convolutional']}/graph")
    edge = page.locator("#canvas .edge-path").first
    expect(edge).to_have_css("stroke", "rgb(0, 0, 0)", timeout=30_000)
    page.get_by_role("button", name="Use the dark theme").click()
    expect(edge).to_have_css("stroke", "rgb(136, 136, 136)")


def test_graph_that_cannot_be_loaded_says_so(site: Site, browser: Browser) -> None:
    watch = Watch(host=site.host, expected=("500", "Failed to"))
    address = f"/models/{site.models['convolutional']}/graph"
    with open_page(browser, watch, base_url=site.url) as page:
        page.route("**/content", lambda route: route.fulfill(status=500))
        page.goto(address)
        expect(page.locator("#graph-notice")).to_contain_text("The server answered 500", timeout=30_000)
        expect(page.locator("#graph-loading")).to_be_hidden()
        page.unroute("**/content")
        page.route("**/view.js", lambda route: route.fulfill(status=500))
        page.goto(address)
        expect(page.locator("#graph-notice")).to_contain_text("This graph cannot be drawn")
    watch.assert_clean()


def test_without_scripts_the_file_is_offered(site: Site, browser: Browser, watch: Watch) -> None:
    with open_page(browser, watch, base_url=site.url, scripts=False) as page:
        page.goto(f"/models/{site.models['convolutional']}/graph")
        expect(page.get_by_text("drawn by scripts")).to_be_visible()
        expect(page.locator("#graph-tools")).to_be_hidden()
        with page.expect_download() as download:
            page.get_by_role("link", name="download it").click()
        assert download.value.suggested_filename == "convolutional.onnx"
    watch.assert_clean()


def test_netrons_modules_find_each_other_and_its_host_is_not_served(site: Site) -> None:
    folder = f"{site.url}/netron/{netron.version()}"
    for name in netron.FILES:
        answer = signed_in.get(f"{folder}/{name}", headers={"Accept-Encoding": "gzip"})
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert signed_in.get(f"{folder}/{name}", headers={"Accept-Encoding": "identity"}).text == answer.text
        asked = set(re.findall(r"(?:from |import\()'\./([\w.-]+)'", answer.text)) if name.endswith(".js") else set()
        assert asked <= netron.FILES, name
    for name in ("index.html", "browser.js", "server.py", "__init__.py", "..%2Fpyproject.toml"):
        assert signed_in.get(f"{folder}/{name}").status_code == 404
    assert signed_in.get(f"{site.url}/netron/0.0.0/view.js").status_code == 404


def test_only_the_graph_has_a_policy_and_files_of_its_own(site: Site) -> None:
    model = f"{site.url}/models/{site.models['convolutional']}"
    policy = signed_in.get(f"{model}/graph").headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert re.findall(r"[\w-]+ [^;]*(?:unsafe|data:|https?:|\*)[^;]*", policy) == [
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:",
    ]
    for address in (model, f"{site.url}/models", site.url):
        answer = signed_in.get(address)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert not re.search(r"/netron/|graph\.(js|css)", answer.text), "other pages stay as light as they were"


def test_a_models_page_tells_its_jobs_and_bundles(site: Site, page: Page) -> None:
    page.goto("/models")
    page.get_by_role("link", name="convolutional", exact=True).click()
    answers = page.locator(".answers")
    expect(answers).to_contain_text("7460 ± 52 µs")
    expect(answers).to_contain_text("1.22× faster than ONNX Runtime, on host")
    expect(answers).to_contain_text("5 jobs")
    expect(page.locator("#jobs tr")).to_have_count(5)
    row = page.locator(f"#job-{site.jobs['many']}")
    expect(row).to_contain_text("1.22×")
    expect(row).to_contain_text("24.1×")
    with page.expect_download() as download:
        row.get_by_role("link", name="bundle-host.tar.gz").click()
    assert download.value.suggested_filename == "bundle-host.tar.gz"
    assert page.locator("#jobs").get_by_role("link", name="bundle-host.tar.gz").count() == 1
    row.get_by_role("link", name="host", exact=True).click()
    page.get_by_role("link", name="The model").click()
    expect(page.get_by_role("heading", name="convolutional")).to_be_visible()
    expect(page.locator(".facts")).to_contain_text("image float32 1×3×16×16")
    expect(page.locator(".facts")).to_contain_text("230 MFLOP")
    expect(page.locator("#operators li")).to_have_text(["Conv 2", "Flatten 1"])


def test_a_model_in_use_stays_and_one_without_jobs_goes(site: Site, browser: Browser) -> None:
    watch = Watch(host=site.host, expected=("409",))
    unused = seed.upload(site.url, LIGHT / "light_zfnet512.onnx")
    with open_page(browser, watch, base_url=site.url, size="phone") as page:
        page.goto(f"/models/{site.models['convolutional']}")
        page.get_by_role("button", name="Delete model").click()
        expect(page.locator("#delete-error")).to_contain_text("Delete the jobs of the model first")
        expect(page.locator("#delete-error code")).to_have_text("model_in_use")
        expect(page.locator("#jobs tr")).to_have_count(5)
        page.goto(f"/models/{unused}")
        expect(page.locator(".empty h2")).to_have_text("Not tuned yet")
        expect(page.locator(".answers")).to_contain_text("Not known yet")
        page.get_by_role("button", name="Delete model").click()
        expect(page.get_by_role("heading", name="Models")).to_be_visible()
        expect(page.locator("main")).not_to_contain_text("light_zfnet512")
    assert signed_in.get(f"{site.url}/models/{unused}").status_code == 404
    watch.assert_clean()
