"""Browsers: signing in by a token or a link, and out; what other pages cannot do with a session."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from service.access import sign_in_links
from service.access.principal import sha256_of
from service.access.refusals import own_address
from service.access.sign_in_links import SignInLinks
from service.access.tokens import revoke_token
from service.database.base import now
from service.database.tables import BrowserSession
from service.services import ProjectServices
from tests.service.access.conftest import HTML, ORIGIN, Tokens, cookie_of, nobody, sign_in
from tests.signed_in import TestClient


def test_a_token_opens_a_session(client: TestClient, services: ProjectServices, token: Tokens) -> None:
    with nobody(client) as browser:
        assert browser.get("/", headers=HTML).status_code == 303
        signed = sign_in(browser, token("submit"), next="/models?q=1")
        assert (signed.status_code, signed.headers["location"]) == (303, "/models?q=1")
        cookie = signed.headers["set-cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=604800"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert browser.get("/", headers=HTML).status_code == 200
        assert browser.get("/api/v1/jobs").status_code == 200
        # Of the scope that the token has.
        assert browser.get("/settings", headers=HTML).status_code == 403
        assert browser.post("/jobs/cancel", data={}, headers=ORIGIN).status_code == 303
    with services.database.read() as session:
        row = session.scalars(select(BrowserSession)).one()
    assert row.id_sha256 == sha256_of(cookie_of(signed))


def test_over_https_the_cookie_never_goes_without(client: TestClient, token: Tokens) -> None:
    browser = TestClient(client.app, base_url="https://localhost", follow_redirects=False)
    browser.portal = client.portal
    secret = token()["Authorization"].removeprefix("Bearer ")
    signed = browser.post("/sign-in", data={"token": secret}, headers={"origin": "https://localhost"})
    assert "; Secure" in signed.headers["set-cookie"]


def test_a_planted_id_opens_nothing_and_is_not_taken_over(
    client: TestClient, services: ProjectServices, token: Tokens
) -> None:
    """Session fixation: whoever planted the cookie must not be signed in when its owner signs in."""
    planted = "tsn_" + "A" * 43
    with nobody(client) as victim, nobody(client) as attacker:
        victim.cookies.set("tessera_80", planted)
        attacker.cookies.set("tessera_80", planted)
        signed = sign_in(victim, token())
        assert cookie_of(signed) != planted
        refused = attacker.get("/api/v1/jobs")
        assert refused.status_code == 401
    with nobody(client) as browser:
        # Nor does a session that is known go on under its old id when somebody signs in with it.
        first = cookie_of(sign_in(browser, token(name="first")))
        second = cookie_of(sign_in(browser, token(name="second")))
        assert first != second
    with services.database.read() as session:
        kept = set(session.scalars(select(BrowserSession.id_sha256)))
    assert sha256_of(first) not in kept
    assert sha256_of(second) in kept


def test_signing_out_ends_the_session_everywhere(client: TestClient, token: Tokens) -> None:
    with nobody(client) as browser, nobody(client) as copy:
        stolen = cookie_of(sign_in(browser, token()))
        copy.cookies.set("tessera_80", stolen)
        assert copy.get("/api/v1/jobs").status_code == 200
        out = browser.post("/sign-out", headers={**HTML, **ORIGIN})
        assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
        assert "tessera_80" not in browser.cookies
        refused = copy.get("/api/v1/jobs")
        assert refused.status_code == 401
        # The browser is told not to bring it again.
        assert 'tessera_80=""' in refused.headers["set-cookie"]


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_session_ends_with_its_token_and_by_itself(
    client: TestClient, services: ProjectServices, token: Tokens, end: str
) -> None:
    with nobody(client) as browser:
        sign_in(browser, token("read"))
        assert browser.get("/api/v1/jobs").status_code == 200
        if end == "revoked":
            revoke_token(services.database, "read")
        else:
            with services.database.write() as session:
                session.execute(update(BrowserSession).values(expires_at=now() - timedelta(seconds=1)))
        client.app.state.access.authenticator.forget()  # type: ignore[attr-defined]
        assert browser.get("/api/v1/jobs").status_code == 401
        assert browser.get("/", headers=HTML).headers["location"] == "/sign-in"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://localhost"}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "http://localhost:8766"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({}, 403),
    ],
    ids=str,
)
def test_pages_of_other_origins_change_nothing_in_a_session(
    client: TestClient, token: Tokens, headers: dict[str, str], status: int
) -> None:
    """Cross-site request forgery: the browser brings the cookie along, whatever page asks."""
    with nobody(client) as browser:
        sign_in(browser, token())
        answer = browser.post("/jobs/cancel", data={}, headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert answer.json()["code"] == "cross_origin"
            # Signing in or out for somebody else is a change, too.
            assert browser.post("/sign-out", headers=headers).status_code == 403
            assert browser.get("/api/v1/jobs", headers=headers).status_code == 200


def test_signing_in_for_somebody_else_is_refused(client: TestClient, token: Tokens) -> None:
    """Login forgery: a page of another site would have the victim work under the attacker's name."""
    secret = token()["Authorization"].removeprefix("Bearer ")
    with nobody(client) as browser:
        refused = browser.post("/sign-in", data={"token": secret}, headers={"origin": "http://evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin")
        assert "set-cookie" not in refused.headers


def test_a_link_signs_one_browser_in_once(client: TestClient, token: Tokens) -> None:
    made = client.post("/api/v1/sign-in-links", headers=token("read"))
    assert made.status_code == 201
    link = made.json()["url"]
    assert re.fullmatch(r"http://localhost/sign-in\?code=tsl_[A-Za-z0-9_-]{43}", link)
    with nobody(client) as browser, nobody(client) as late:
        signed = browser.get(f"{link}&next=/models", headers=HTML)
        assert (signed.status_code, signed.headers["location"]) == (303, "/models")
        newest = client.get("/api/v1/audit?limit=1").json()["items"][0]
        assert (newest["who"], newest["method"], newest["path"]) == ("read", "GET", "/sign-in")
        assert browser.get("/api/v1/jobs").status_code == 200
        assert browser.get("/settings", headers=HTML).status_code == 403
        again = late.get(link, headers=HTML)
        assert again.status_code == 401
        assert "The link was used already, or is older than ten minutes." in again.text
        assert "set-cookie" not in again.headers


def test_a_link_lives_ten_minutes() -> None:
    now_s = 0.0
    links = SignInLinks(clock=lambda: now_s)
    early, late = links.make("t"), links.make("t")
    now_s = sign_in_links.LIFETIME_S - 1
    assert links.redeem(early) == "t"
    assert links.redeem(early) is None
    now_s = sign_in_links.LIFETIME_S
    assert links.redeem(late) is None
    assert links.redeem("tsl_" + "A" * 43) is None
    codes = [links.make(str(number)) for number in range(101)]
    assert [links.redeem(code) for code in (codes[0], codes[-1])] == [None, "100"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\r\nset-cookie: a=b",
        "evil",
        "",
    ],
)
def test_nobody_is_sent_elsewhere_after_signing_in(client: TestClient, token: Tokens, elsewhere: str) -> None:
    assert own_address(elsewhere) == "/"
    with nobody(client) as browser:
        assert sign_in(browser, token(), next=elsewhere).headers["location"] == "/"
        assert 'name="next" value="/"' in browser.get("/sign-in", params={"next": elsewhere}, headers=HTML).text


def test_wrong_tokens_are_told_on_the_page(client: TestClient) -> None:
    with nobody(client) as browser:
        for wrong in ("", "tss_" + "A" * 43, "x" * 300):
            answer = browser.post("/sign-in", data={"token": wrong, "next": "/models"}, headers={**HTML, **ORIGIN})
            assert answer.status_code == 401
            assert "The token is unknown, was revoked, or has expired." in answer.text
            assert 'name="next" value="/models"' in answer.text
            assert "set-cookie" not in answer.headers
            if wrong:
                assert wrong not in answer.text


def test_two_servers_of_one_machine_have_cookies_of_their_own(client: TestClient, token: Tokens) -> None:
    """Cookies know no ports."""
    for port in (8765, 8766):
        browser = TestClient(client.app, base_url=f"http://127.0.0.1:{port}", follow_redirects=False)
        browser.portal = client.portal
        secret = token(name=str(port))["Authorization"].removeprefix("Bearer ")
        signed = browser.post("/sign-in", data={"token": secret}, headers={"origin": f"http://127.0.0.1:{port}"})
        assert signed.headers["set-cookie"].startswith(f"tessera_{port}=")
