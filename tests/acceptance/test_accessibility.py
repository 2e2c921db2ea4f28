"""axe-core on every page, in both sizes and both themes: nothing serious, nothing critical."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.acceptance.conftest import Site, Watch, open_page
from tests.acceptance.test_pages import addresses, settle

pytestmark = pytest.mark.acceptance

RULES = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
BARRIERS = ("serious", "critical")


def barriers(page: Page) -> list[str]:
    """What keeps somebody from using the page as it is now: rule, element, reason."""
    violations = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{violation['id']}: {node['html'][:160]} {node['failureSummary']}"
        for violation in violations
        if violation["impact"] in BARRIERS
        for node in violation["nodes"]
    ]


# Every page in both widths and in both colour schemes; what is wrong with one hardly depends on the other.
@pytest.mark.parametrize(("size", "scheme"), [("wide", "light"), ("phone", "dark")])
@pytest.mark.slow
def test_no_page_has_a_barrier(site: Site, browser: Browser, watch: Watch, size: str, scheme: str) -> None:
    found = {}
    with open_page(browser, watch, base_url=site.url, size=size, scheme=scheme) as page:
        for name, address in addresses(site):
            page.goto(address)
            settle(page, name)
            # What is folded up is hidden from the rules as well.
            page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
            if problems := barriers(page):
                found[name] = problems
    assert found == {}
    watch.assert_clean()


def test_pages_without_anything_have_none_either(empty_site: Site, browser: Browser) -> None:
    watch = Watch(host=empty_site.host, expected=("404",))
    with open_page(browser, watch, base_url=empty_site.url, size="phone") as page:
        for address in ("/", "/new", "/models", "/cost-models", "/cost-models/host", "/records", "/jobs/no-such-job"):
            page.goto(address)
            assert barriers(page) == [], address
    watch.assert_clean()


def test_what_an_action_brings_up_has_none(site: Site, page: Page) -> None:
    page.goto("/")
    page.locator(f"#choose-{site.jobs['many']}").check()
    assert barriers(page) == []
    page.goto(f"/jobs/{site.jobs['running']}")
    settle(page, "jobs-running")
    page.locator("#link-state").evaluate("each => { each.hidden = false; each.textContent = 'Reconnecting…' }")
    plot = page.locator("#chart .u-over")
    plot.scroll_into_view_if_needed()
    plot.hover()
    page.locator("#chart .tip").evaluate("tip => { tip.hidden = false; tip.textContent = 'Trial 12: 412 µs' }")
    assert barriers(page) == []


def test_a_barrier_is_found(site: Site, page: Page) -> None:
    page.goto("/")
    page.evaluate("document.querySelector('#theme').insertAdjacentHTML('afterend', '<button></button>')")
    page.evaluate("document.querySelector('h1').style.color = '#bbb'")
    assert {problem.partition(":")[0] for problem in barriers(page)} == {"button-name", "color-contrast"}
