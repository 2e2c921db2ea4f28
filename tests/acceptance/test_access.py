"""Signing in and out in a real browser, and what a page does whose session has ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from service.access.scopes import AccessScope
from service.access.tokens import create_token, revoke_token
from service.schemas.access import TokenCreate
from tests import signed_in
from tests.acceptance import seed
from tests.acceptance.conftest import Site, Watch, open_page

pytestmark = pytest.mark.acceptance


def test_out_and_in_again(site: Site, browser: Browser, watch: Watch) -> None:
    made = create_token(site.services.database, TokenCreate(name="browser test", scope=AccessScope.SUBMIT))
    watch.expected = ("401", "403")
    with open_page(browser, watch, base_url=site.url) as page:
        page.goto("/models")
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("h1")).to_have_text("Sign in")
        expect(page.get_by_role("navigation")).to_have_count(0)
        page.goto("/models?q=x")
        expect(page).to_have_url(f"{site.url}/sign-in?next=%2Fmodels%3Fq%3Dx")
        page.get_by_label("Token").fill("tss_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("The token is unknown")
        page.get_by_label("Token").fill(made.token)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{site.url}/models?q=x")
        # No script of a page can read the session.
        assert page.evaluate("document.cookie") == ""
        answer = page.goto("/settings")
        assert answer is not None
        assert answer.status == 403
        expect(page.locator("main")).to_contain_text("This needs the scope admin")
    watch.assert_clean()


def test_a_link_leads_in(site: Site, browser: Browser, watch: Watch) -> None:
    header = {"Authorization": f"Bearer {signed_in.token_of(site.url)}"}
    with open_page(browser, watch, base_url=site.url) as page:
        page.context.clear_cookies()
        link = page.context.request.post("/api/v1/sign-in-links", headers=header).json()["url"]
        page.goto(link)
        expect(page).to_have_url(f"{site.url}/")
        expect(page.locator("h1")).to_have_text("Jobs")
    watch.assert_clean()


def test_a_page_that_follows_a_job_leads_to_the_sign_in_when_its_token_is_revoked(
    empty_site: Site, browser: Browser, convolutional_model: Path
) -> None:
    seed_model = seed.upload(empty_site.url, convolutional_model)
    job = signed_in.post(f"{empty_site.url}/api/v1/jobs", json={"model_id": seed_model}).json()["id"]
    made = create_token(empty_site.services.database, TokenCreate(name="browser test", scope=AccessScope.READ))
    watch = Watch(host=empty_site.host, expected=("401", "EventSource"))
    with open_page(browser, watch, base_url=empty_site.url) as page:
        page.context.clear_cookies()
        page.goto(f"/jobs/{job}")
        page.get_by_label("Token").fill(made.token)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{empty_site.url}/jobs/{job}")
        revoke_token(empty_site.services.database, "browser test")
        expect(page).to_have_url(re.compile(rf"/sign-in\?next=%2Fjobs%2F{job}$"), timeout=30_000)
    watch.assert_clean()


def test_a_token_is_made_and_revoked_on_the_settings_page(empty_site: Site, browser: Browser) -> None:
    watch = Watch(host=empty_site.host)
    with open_page(browser, watch, base_url=empty_site.url, scripts=False) as page:
        page.goto("/settings")
        page.get_by_label("Name").fill("ci")
        page.get_by_label("Scope").select_option("submit")
        page.get_by_role("button", name="Make token").click()
        token = page.locator("#made-token").inner_text()
        header = {"Authorization": f"Bearer {token}"}
        assert page.context.request.get("/api/v1/jobs", headers=header).status == 200
        page.get_by_role("button", name="Revoke ci").click()
        expect(page.locator("#tokens")).to_contain_text("revoked")
        assert page.context.request.get("/api/v1/jobs", headers=header).status == 401
    watch.assert_clean()
