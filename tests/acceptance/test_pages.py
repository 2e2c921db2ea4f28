"""Every page over a filled database, in a real browser: content, widths, themes, console, requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance import seed
from tests.acceptance.conftest import RESULTS, SIZES, Site, Watch, open_page

pytestmark = pytest.mark.acceptance

JOBS = ("failed", "many", "no_improvement", "cancelled", "cancelling", "running", "queued")
PAGES = (
    "/",
    "/new",
    "/new?model={convolutional}",
    "/models",
    "/models/{convolutional}",
    "/models/{dynamic_sides}",
    "/models/{convolutional}/graph",
    "/targets",
    "/cost-models",
    "/cost-models/host",
    "/jobs/{running}/trials",
    "/jobs/{many}/tasks/task0",
    "/jobs/{many}/tasks/task2",
    "/jobs/{running}/tasks/task1",
    "/jobs/{cancelled}/tasks/task9",
    "/settings",
    "/sign-in?next=/models",
    "/docs",
    "/records",
    "/records?target=raspberry-pi-4&which=all",
    "/?state=succeeded",
    "/?q=no-such-model",
    "/compare?job={many}&job={no_improvement}&job={cancelled}&job={running}",
)


def addresses(site: Site) -> Iterator[tuple[str, str]]:
    """Name and address of every page."""
    ids = {**site.jobs, **{name: site.models[name] for name in ("convolutional", "dynamic_sides")}}
    for path in (*PAGES, *(f"/jobs/{{{name}}}" for name in JOBS)):
        name = re.sub(r"[^a-z0-9]+", "-", path).strip("-") or "jobs"
        yield name, path.format_map(ids)


def settle(page: Page, name: str) -> None:
    """Waits for what a page shows only after it has loaded."""
    expect(page.locator("h1")).to_be_visible()
    if name.startswith("jobs-") and not name.endswith("trials"):
        expect(page.locator("#chart")).to_have_attribute("data-points", re.compile(r"\d+"))
    elif name.endswith("-graph"):
        expect(page.locator("#canvas .node-item-type").first).to_be_visible(timeout=30_000)
    elif name.startswith("new-model"):
        expect(page.locator("#preflight .preflight-grid")).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["wide", "phone"])
def test_every_page_is_quiet_and_fits(site: Site, browser: Browser, watch: Watch, size: str, scheme: str) -> None:
    folder = RESULTS / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    with open_page(browser, watch, base_url=site.url, size=size, scheme=scheme) as page:
        for name, address in addresses(site):
            page.goto(address)
            settle(page, name)
            too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            page.screenshot(path=folder / f"{name}-{size}-{scheme}.png", full_page=True)
            assert too_wide == 0, f"{name} scrolls sideways at {SIZES[size][0]} px"
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            lightness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
            assert (lightness < 200) == (scheme == "dark"), f"{name} is not {scheme}: {background}"
    watch.assert_clean()


def test_the_reference_fits_a_phone_unfolded(site: Site, browser: Browser, watch: Watch) -> None:
    with open_page(browser, watch, base_url=site.url, size="phone") as page:
        page.goto("/docs")
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        expect(page.locator("#create_job + p")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        parts = "'.operation :is(p, h3, pre, code, table, tbody, tr, td, tbody th)'"
        wide = "each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1 && !each.closest('thead')"
        found = f"[...document.querySelectorAll({parts})].filter((each) => {wide}).map((each) => each.outerHTML)"
        assert page.evaluate(found) == []
    watch.assert_clean()


def test_a_task_shows_its_schedule_its_knobs_and_its_trials(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['many']}")
    page.locator("#task-task0 th a").click()
    expect(page.get_by_role("heading", name=seed.TASKS[0][0])).to_be_visible()
    expect(page.locator("#chart")).to_have_attribute("data-points", "2503")
    parallel = page.locator(".loop-parallel").first
    expect(parallel.locator(".it").first).to_have_text(re.compile(r"\S+ \d+"))
    expect(parallel.locator(".loop-vectorized").first).to_be_visible()
    expect(page.locator(".importance tbody tr").first).to_contain_text("%")
    page.locator("#script-diff summary").click()
    expect(page.locator("#script-diff .plus").first).to_be_visible()
    page.locator("#script-after summary").click()
    page.get_by_role("button", name="Copy the script after scheduling").click()
    expect(page.locator("#script-after button")).to_have_text("Copied")
    page.goto(f"/jobs/{site.jobs['many']}/tasks/task2")
    expect(page.locator(".buffers")).to_contain_text("2 strips, 3 rows kept in each")


def test_jobs_list_says_what_every_job_is_at(site: Site, page: Page) -> None:
    page.goto("/")
    words = {
        "failed": "Failed",
        "many": "Succeeded",
        "no_improvement": "Succeeded",
        "cancelled": "Cancelled",
        "cancelling": "Cancelling",
        "running": "Running",
        "queued": "Queued",
    }
    for name, word in words.items():
        expect(page.locator(f"#job-{site.jobs[name]} .state")).to_have_text(word)
        assert page.locator(f"#job-{site.jobs[name]} .state svg").count() == 1, "a state is a word and a shape"
    running = page.locator(f"#job-{site.jobs['running']}")
    expect(running).to_contain_text("128 of 256 trials, about 1 min 35 s left")
    expect(running.locator("progress")).to_have_attribute("value", "0.5")
    expect(running).to_contain_text("estimated")
    many = page.locator(f"#job-{site.jobs['many']}")
    expect(many).to_contain_text("7460 ± 52 µs")
    expect(many).to_contain_text("1.22×")
    expect(many).to_contain_text("24.1×")
    expect(page.locator(f"#job-{site.jobs['queued']}")).to_contain_text("Next to start.")
    expect(page.locator(f"#job-{site.jobs['later']}")).to_contain_text("1 job before it")


def test_chosen_jobs_stay_chosen_and_are_compared(site: Site, page: Page) -> None:
    page.goto("/")
    for name in ("many", "running"):
        page.locator(f"#choose-{site.jobs[name]}").check()
    # The list is brought up to date every two seconds: what was chosen stays so.
    page.evaluate("import('/static/live.js').then((live) => live.refresh())")
    expect(page.locator(f"#choose-{site.jobs['running']}")).to_be_checked()
    page.get_by_role("button", name="Compare chosen").click()
    expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    expect(page.locator("#facts thead a")).to_have_count(2)
    expect(page.locator("#tasks tbody tr")).to_have_count(len(seed.TASKS))
    expect(page.locator(".pictures-wide svg")).to_be_visible()


def test_a_sweep_is_one_form(site: Site, page: Page) -> None:
    page.goto(f"/new?model={site.models['convolutional']}")
    page.get_by_text("More targets, with a job each").click()
    page.get_by_role("checkbox", name="raspberry-pi-4").check()
    expect(page.get_by_role("checkbox", name="cuda-8.0")).not_to_be_checked()


def test_the_list_is_searched(site: Site, page: Page) -> None:
    page.goto("/")
    page.get_by_label("Search").fill("really_long")
    page.get_by_label("State").select_option("succeeded")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("#jobs tr")).to_have_count(1)
    expect(page.locator(f"#job-{site.jobs['no_improvement']}")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(f"#job-{site.jobs['failed']}")).to_be_visible()


def test_finished_job_answers_its_three_questions(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['many']}")
    expect(page.locator("#answer-speed .a")).to_have_text("1.22× faster than ONNX Runtime")
    expect(page.locator("#answer-speed")).to_contain_text("Against untuned: 24.1×")
    expect(page.locator("#answer-right")).to_contain_text("Verified")
    expect(page.locator("#answer-right")).to_contain_text("1.2e-6")
    expect(page.locator("#results")).to_contain_text("Machine drift while searching")
    expect(page.locator("#results")).to_contain_text("1.08× (slowest ÷ fastest")
    expect(page.locator("#results")).to_contain_text("differ by 0.6 %")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "bundle-host.tar.gz"
    expect(page.locator("#downloads .command")).to_have_count(4)
    expect(page.locator("#downloads")).to_contain_text("sha256sum -c")


def test_job_without_gain_says_so(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['no_improvement']}")
    expect(page.locator("#answer-speed .a")).to_have_text("No faster build found")
    expect(page.locator("#results")).to_contain_text("Tuned, not shipped")


def test_failed_job_shows_error_hint_and_code(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['failed']}")
    notice = page.locator("#job-error")
    expect(notice).to_contain_text("Celu (2), LSTM (1)")
    expect(notice).to_contain_text("Replace the listed operators")
    expect(notice.locator("code")).to_have_text("unsupported_operators")
    expect(page.locator(".stages .broken")).to_contain_text("Import")
    expect(page.locator("#chart-empty")).to_have_text("No trial was measured.")


def test_ten_thousand_trials_are_drawn_and_listed(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['many']}")
    expect(page.locator("#chart")).to_have_attribute("data-points", str(seed.MANY_TRIALS))
    page.locator("#steps summary").click()
    assert page.locator("#steps tbody tr").count() > 20
    page.get_by_role("link", name="All trials as a table").click()
    expect(page.locator("tbody tr")).to_have_count(200)
    page.get_by_role("link", name="Next trials").click()
    expect(page.locator("tbody tr").first.locator("td").first).to_have_text("201")
    page.get_by_label("Task").select_option("task3")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**task=task3**", wait_until="load")
    expect(page.locator("tbody tr")).not_to_have_count(0)
    assert set(page.locator("tbody tr td:nth-child(2)").all_inner_texts()) == {"matmul"}


def test_chart_shows_a_task_and_tells_a_trial_under_the_pointer(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['running']}")
    chart = page.locator("#chart")
    expect(chart).to_have_attribute("data-points", "128")
    page.locator("#chart-task").select_option("task0")
    expect(chart).to_have_attribute("data-points", "32")
    page.locator("#chart-task").select_option("")
    page.locator("#chart-log").uncheck()
    page.locator("#chart-log").check()
    plot = page.locator("#chart .u-over")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    tip = page.locator("#chart .tip")
    # Along a diagonal some trial is within reach.
    for step in range(1, 40):
        page.mouse.move(box["x"] + box["width"] * (0.3 + step / 80), box["y"] + box["height"] * (0.2 + step / 60))
        if tip.is_visible():
            break
    expect(tip).to_contain_text(re.compile(r"Trial \d+: "))
    expect(tip).to_contain_text("h 7·2·4·1")
    expect(tip).to_contain_text("vector width 16")


def test_tasks_table_draws_tiles(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['running']}")
    rows = page.locator("#tasks tr")
    expect(rows).to_have_count(5)
    drawing = page.locator("#task-task0 summary svg.tiles")
    expect(drawing).to_have_attribute("aria-label", re.compile(r"h 7·2·4·1.*co 4·1·1·"))
    large = page.locator("#task-task0 .schedule > svg.tiles")
    expect(large).to_be_hidden()
    drawing.click()
    expect(large).to_be_visible()
    assert {"h", "w", "co", "ci"} <= set(large.locator("text.axis").all_text_contents())
    expect(page.locator("#task-task9")).to_contain_text("default schedule")
    cells = rows.locator("td[data-label=Share]").all_inner_texts()
    shares = [float(text) for text in re.findall(r"([\d.]+)\s%", " ".join(cells))]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1.5)


def test_tasks_table_says_how_near_to_the_roofline_and_how_far_from_untuned(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['many']}")
    expect(page.locator("#task-task0 td[data-label='Of roofline']")).to_have_text(re.compile(r"^\d+\s%$"))
    expect(page.locator("#task-task0 td[data-label='Against untuned']")).to_have_text(re.compile(r"^\d+\.\d×$"))
    expect(page.locator("#task-task3 td[data-label='Against untuned']")).to_have_text("–")
    expect(page.locator("#task-task9 td[data-label='Of roofline']")).to_have_text("–")
    expect(page.locator("#tasks-legend")).to_contain_text("at 412 GFLOP/s or its traffic with memory at 18.4 GB/s")


def test_memory_is_drawn_where_a_bundle_tells_of_it(site: Site, page: Page) -> None:
    page.goto(f"/jobs/{site.jobs['many']}")
    memory = page.locator("#memory")
    expect(memory.locator(".answers")).to_contain_text("1.16 MiB")
    expect(memory.locator(".answers")).to_contain_text("less than the 5.61 MiB without windows")
    expect(memory.locator("svg.memory-front")).to_be_visible()
    expect(memory.locator("svg.memory-timeline")).to_be_visible()
    expect(memory.locator("figure svg.windows")).to_have_count(3)
    expect(memory.locator("figure").first).to_contain_text("at the seams of strips")
    memory.locator("#front-table summary").click()
    expect(memory.locator("#front-table tbody tr")).to_have_count(5)
    page.goto(f"/jobs/{site.jobs['failed']}")
    expect(page.locator("#memory")).to_contain_text("the job has no bundle")
    page.goto(f"/jobs/{site.jobs['running']}")
    expect(page.locator("#memory")).to_contain_text("planned when the network is built")


def test_cost_model_answers_how_well_it_ranks(site: Site, page: Page) -> None:
    page.goto("/cost-models")
    page.get_by_role("link", name="host", exact=True).click()
    expect(page.locator("#h-quality")).to_have_text("How well does it rank schedules it has never seen?")
    figures = page.locator(".answers .a")
    expect(figures).to_have_text(["91.1 % right", "93.4 % of the best", "97.6 % of the best"])
    picture = page.locator("svg.scatter")
    expect(picture.locator(".dot")).to_have_count(400)
    expect(picture).to_have_attribute("aria-label", re.compile("400 schedules of 12 workloads"))
    frame = picture.bounding_box()
    dots = picture.locator(".dot").evaluate_all("dots => dots.map(dot => dot.getBoundingClientRect().toJSON())")
    assert frame is not None
    assert all(frame["x"] < dot["left"] and dot["right"] < frame["x"] + frame["width"] for dot in dots)
    assert all(frame["y"] < dot["top"] and dot["bottom"] < frame["y"] + frame["height"] for dot in dots)
    counted = page.locator("section[aria-labelledby=h-picture] tbody td:nth-child(2)").all_inner_texts()
    assert sum(map(int, counted)) == 400, "every point is in the table"
    expect(page.locator("#versions tr")).to_have_count(5)
    expect(page.locator("#version-4")).to_contain_text("85.1 %")
    expect(page.locator("svg.trend")).to_have_attribute("aria-label", re.compile("version 2 78.4 %.*version 5 91.1 %"))


def test_cost_model_is_restored_without_scripts(empty_site: Site, browser: Browser) -> None:
    watch = Watch(host=empty_site.host)
    seed.add_cost_models(empty_site.services)
    with open_page(browser, watch, base_url=empty_site.url, size="phone", scripts=False) as page:
        page.goto("/cost-models/host")
        page.get_by_role("button", name="Restore version 3").click()
        expect(page.locator("#versions tr").first).to_contain_text("the same as version 3")
        expect(page.locator(".answers .a").first).to_have_text("86.2 % right")
        expect(page.locator("#versions tr")).to_have_count(6)
        page.get_by_role("button", name="Restore version 1").click()
        expect(page.locator(".answers .a")).to_have_text("Not measured")
    watch.assert_clean()


def test_theme_is_toggled_and_remembered(site: Site, page: Page) -> None:
    page.goto("/")
    toggle = page.get_by_role("button", name="Use the dark theme")
    toggle.click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto("/targets")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Use the light theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_keyboard_reaches_content_and_links(site: Site, page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') ?? document.activeElement.id"))
    assert {f"choose-{site.jobs['later']}", f"/jobs/{site.jobs['later']}"} <= reached


def test_empty_site_starts_the_first_job(empty_site: Site, browser: Browser) -> None:
    watch = Watch(host=empty_site.host)
    with open_page(browser, watch, base_url=empty_site.url) as page:
        for address, text in (
            ("/", "No jobs yet"),
            ("/models", "No models yet"),
            ("/cost-models", "No cost model yet"),
            ("/cost-models/host", "No cost model for host yet"),
        ):
            page.goto(address)
            expect(page.locator(".empty h2")).to_have_text(text)
        page.goto("/")
        page.screenshot(path=RESULTS / "pages" / "empty-wide-light.png")
        page.get_by_role("link", name="Upload a model").click()
        expect(page.locator("#file")).to_be_visible()
    watch.assert_clean()


def test_unknown_job_is_a_page_with_a_hint(site: Site, browser: Browser, watch: Watch) -> None:
    watch.expected = ("404",)
    with open_page(browser, watch, base_url=site.url) as page:
        answer = page.goto("/jobs/no-such-job")
        assert answer is not None
        assert answer.status == 404
        expect(page.locator("main")).to_contain_text("There is no job 'no-such-job'.")
        expect(page.locator("main code")).to_have_text("job_not_found")
        page.screenshot(path=RESULTS / "pages" / "missing-wide-light.png")
    watch.assert_clean()
