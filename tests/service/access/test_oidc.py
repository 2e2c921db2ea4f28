"""Signing in at an OpenID Connect provider, and everything that is not believed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from pydantic import ValidationError
from sqlalchemy import select

from service.access import oidc
from service.access.start_up import AccessNotSetUp, require_access
from service.access.tokens import list_tokens, revoke_token
from service.app import create_app
from service.database import Database
from service.database.tables import AuditEntry
from service.settings import Settings
from tests.service.access.conftest import HTML, ORIGIN, nobody
from tests.service.access.provider import CLIENT_ID, CLIENT_SECRET, Provider, providing
from tests.signed_in import TestClient

SCOPES = "admins=admin, cats=submit@cats, ml=submit, *=read"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture
def settings(settings: Settings, provider: Provider) -> Settings:
    given = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET}
    return Settings(**{**settings.model_dump(), **given, "oidc_scopes": SCOPES, "failed_sign_ins_per_min": 1000})


@pytest.fixture
def browser(client: TestClient) -> Iterator[TestClient]:
    with nobody(client) as browser:
        yield browser


def leave(browser: TestClient, next: str = "/models?q=1") -> httpx2.Response:
    """To the provider, and the address that it sends the browser back to."""
    away = browser.get("/sign-in/oidc", params={"next": next}, headers=HTML)
    assert away.status_code == 303, away.text
    back = httpx2.get(away.headers["location"], trust_env=False)
    assert back.status_code == 303, back.text
    return back


def sign_in(browser: TestClient, next: str = "/models?q=1") -> httpx2.Response:
    return browser.get(leave(browser, next).headers["location"], headers={**HTML, "sec-fetch-site": "cross-site"})


def scope_of(browser: TestClient) -> str:
    if browser.get("/api/v1/jobs").status_code != 200:
        return "none"
    if browser.get("/settings", headers=HTML).status_code == 200:
        return "admin"
    return "submit" if browser.post("/jobs/cancel", data={}, headers=ORIGIN).status_code == 303 else "read"


def test_the_page_leads_there_and_back_to_where_somebody_wanted_to_go(
    client: TestClient, browser: TestClient, provider: Provider
) -> None:
    page = browser.get("/sign-in?next=/models", headers=HTML).text
    assert re.search(r'href="/sign-in/oidc\?next=/models">Sign in with 127\.0\.0\.1:\d+<', page)
    away = browser.get("/sign-in/oidc?next=/models%3Fq%3D1", headers=HTML)
    cookie = away.headers["set-cookie"]
    assert {"HttpOnly", "Path=/sign-in/oidc", "SameSite=lax", "Max-Age=600"} <= set(cookie.split("; "))
    query = parse_qs(urlsplit(away.headers["location"]).query)
    assert query["redirect_uri"] == ["http://localhost/sign-in/oidc/callback"]
    assert not any(value in cookie for name in ("state", "nonce", "code_challenge") for value in query[name])

    signed = sign_in(browser)
    assert (signed.status_code, signed.headers["location"]) == (303, "/models?q=1")
    assert scope_of(browser) == "submit"
    (person,) = [token for token in client.get("/api/v1/tokens").json()["items"] if token["kind"] != "local"]
    assert person["name"] == f"ada@example.com ({urlsplit(provider.issuer).netloc})"
    assert [entry["who"] for entry in client.get("/api/v1/audit").json()["items"] if entry["path"] == "/sign-in"] == [
        person["name"]
    ]
    assert sign_in(browser, next="https://evil.example").headers["location"] == "/"


@pytest.mark.parametrize(
    ("groups", "scope"),
    [(["ml", "admins"], "admin"), (["ml"], "submit"), ("ml", "submit"), (["x"], "read"), ([], "read")],
)
def test_the_claim_says_which_scope(browser: TestClient, provider: Provider, groups: Any, scope: str) -> None:
    provider.user["groups"] = groups
    assert sign_in(browser).status_code == 303
    assert scope_of(browser) == scope


@pytest.mark.parametrize(
    ("groups", "project"),
    [(["ml"], "default"), (["cats"], "cats"), (["ml", "cats"], "cats"), (["cats", "admins"], "default")],
)
def test_the_claim_says_which_project(
    client: TestClient, browser: TestClient, provider: Provider, groups: list[str], project: str
) -> None:
    provider.user["groups"] = groups
    sign_in(browser)
    database = client.app.state.services.database  # type: ignore[attr-defined]
    (person,) = [token for token in list_tokens(database) if token.kind != "local"]
    assert person.project == project


def test_somebody_is_the_same_whatever_they_are_called_and_has_the_scope_of_now(
    client: TestClient, browser: TestClient, provider: Provider
) -> None:
    with nobody(client) as another:
        provider.user["groups"] = ["admins"]
        sign_in(another)
        assert scope_of(another) == "admin"
        provider.user |= {"email": "ada@new.example.com", "groups": ["ml"]}
        sign_in(browser)
        client.app.state.access.authenticator.forget()  # type: ignore[attr-defined]
        assert scope_of(another) == "submit"
        database = client.app.state.services.database  # type: ignore[attr-defined]
        (person,) = [token for token in list_tokens(database) if token.kind != "local"]
        assert person.name.startswith("ada@new.example.com (")
        revoke_token(database, person.id)
        client.app.state.access.authenticator.forget()  # type: ignore[attr-defined]
        assert (scope_of(another), scope_of(browser)) == ("none", "none")
        # Who may sign in is for the provider to say.
        sign_in(browser)
        client.app.state.access.authenticator.forget()  # type: ignore[attr-defined]
        assert scope_of(browser) == "submit"


def test_a_name_is_shown_whatever_it_holds(client: TestClient, browser: TestClient, provider: Provider) -> None:
    provider.user["email"] = "x\x00\n\u202e" + "y" * 300
    assert sign_in(browser).status_code == 303
    (person,) = [token for token in client.get("/api/v1/tokens").json()["items"] if token["kind"] != "local"]
    assert person["name"].startswith("xyyyy")
    assert len(person["name"]) <= 100


def test_two_people_are_two(client: TestClient, browser: TestClient, provider: Provider) -> None:
    sign_in(browser)
    provider.user["sub"] = "2"
    sign_in(browser)
    assert len(client.get("/api/v1/tokens").json()["items"]) == 3


def test_without_a_group_that_has_a_scope_there_is_no_access(settings: Settings, provider: Provider) -> None:
    with (
        TestClient(create_app(settings.model_copy(update={"oidc_scopes": "admins=admin"}), engine=False)) as client,
        nobody(client) as browser,
    ):
        refused = sign_in(browser)
        assert refused.status_code == 401
        assert "has no access here" in refused.text
        assert scope_of(browser) == "none"


@pytest.mark.parametrize("methods", [("client_secret_post",), ("none",), ("client_secret_basic",)])
def test_clients_say_their_secret_as_the_provider_wants(
    settings: Settings, provider: Provider, methods: tuple[str, ...]
) -> None:
    provider.methods = methods
    public = {"oidc_client_secret": None} if "none" in methods else {}
    with (
        TestClient(create_app(settings.model_copy(update=public), engine=False)) as client,
        nobody(client) as browser,
    ):
        assert sign_in(browser).status_code == 303
        assert scope_of(browser) == "submit"


def test_a_claim_may_be_told_elsewhere(browser: TestClient, provider: Provider) -> None:
    provider.only_in_userinfo = ("groups", "email")
    assert sign_in(browser).status_code == 303
    assert scope_of(browser) == "submit"
    provider.userinfo = {"sub": "somebody else"}
    assert "tells of somebody else" in sign_in(browser).text


Change = Callable[[dict[str, Any]], object]
_WRONG: dict[str, Change] = {
    "another's nonce": lambda claims: claims.update(nonce="another"),
    "no nonce": lambda claims: claims.pop("nonce"),
    "for another client": lambda claims: claims.update(aud="another"),
    "for nobody": lambda claims: claims.pop("aud"),
    "used by another client": lambda claims: claims.update(aud=[CLIENT_ID, "another"], azp="another"),
    "of another issuer": lambda claims: claims.update(iss="https://evil.example"),
    "of no issuer": lambda claims: claims.pop("iss"),
    "expired": lambda claims: claims.update(exp=int(time.time()) - 120),
    "without an end": lambda claims: claims.pop("exp"),
    "of the future": lambda claims: claims.update(iat=int(time.time()) + 600),
    "of nobody": lambda claims: claims.pop("sub"),
    "of a number": lambda claims: claims.update(sub=1),
}


@pytest.mark.parametrize("change", _WRONG.values(), ids=_WRONG)
def test_claims_that_are_not_for_this_attempt_are_refused(
    browser: TestClient, provider: Provider, change: Change
) -> None:
    provider.change = change
    refused = sign_in(browser)
    assert refused.status_code == 401
    assert "cannot be believed" in refused.text
    assert scope_of(browser) == "none"


@pytest.mark.parametrize("forged", ["by_another_key", "by_the_clients_secret", "by_nobody"])
def test_a_signature_has_to_be_the_providers(browser: TestClient, provider: Provider, forged: str) -> None:
    provider.sign = getattr(provider, forged)
    refused = sign_in(browser)
    assert refused.status_code == 401
    assert "cannot be believed" in refused.text
    provider.sign = lambda claims: "no.token"
    assert sign_in(browser).status_code == 401
    assert scope_of(browser) == "none"


def test_only_the_browser_that_left_comes_back_once(client: TestClient, browser: TestClient) -> None:
    """Somebody else's code would sign a browser in as somebody else (login CSRF)."""
    back = leave(browser).headers["location"]
    with nobody(client) as victim:
        refused = victim.get(back, headers=HTML)
        assert refused.status_code == 401
        assert "another browser" in refused.text
        leave(victim)
        assert victim.get(back, headers=HTML).status_code == 401  # with an attempt of their own
        assert scope_of(victim) == "none"
    stolen = f"{back.partition('&state=')[0]}&state=guessed"
    assert browser.get(stolen, headers=HTML).status_code == 401
    assert browser.get(back, headers=HTML).status_code == 401  # that attempt is over
    back = leave(browser).headers["location"]
    assert browser.get(back, headers=HTML).status_code == 303
    assert browser.get(back, headers=HTML).status_code == 401


def test_a_code_is_good_for_its_own_attempt_only(browser: TestClient) -> None:
    """A code that was stolen on its way is of no use without the verifier that only the browser's cookie makes."""
    stolen = parse_qs(urlsplit(leave(browser).headers["location"]).query)["code"][0]
    own = parse_qs(urlsplit(leave(browser).headers["location"]).query)
    injected = browser.get("/sign-in/oidc/callback", params={"code": stolen, "state": own["state"][0]}, headers=HTML)
    assert injected.status_code == 401
    assert "does not know the code" in injected.text


def test_what_the_provider_refuses_is_said(browser: TestClient) -> None:
    state = parse_qs(urlsplit(leave(browser).headers["location"]).query)["state"][0]
    told = {"error": "access_denied<script>", "state": state}
    refused = browser.get("/sign-in/oidc/callback", params=told, headers=HTML)
    assert refused.status_code == 401
    assert "access_denied&lt;script&gt;" in refused.text


def test_guesses_are_limited(settings: Settings) -> None:
    few = settings.model_copy(update={"failed_sign_ins_per_min": 3})
    with TestClient(create_app(few, engine=False)) as client, nobody(client) as browser:
        statuses = [browser.get("/sign-in/oidc/callback?code=x&state=y", headers=HTML).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        database = client.app.state.services.database  # type: ignore[attr-defined]
        with database.read() as session:
            assert set(session.scalars(select(AuditEntry.status))) == {401}


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"jwks_uri": 7},
        {"token_endpoint": "http://127.0.0.1:9/token"},
    ],
    ids=str,
)
def test_a_provider_that_is_none_is_told(browser: TestClient, provider: Provider, described: dict[str, Any]) -> None:
    provider.described = described
    answer = browser.get("/sign-in/oidc", headers=HTML)
    if answer.status_code == 303:
        answer = sign_in(browser)
    assert answer.status_code == 502
    assert "oidc_unavailable" in answer.text
    assert "Tokens still sign in" in answer.text


def test_a_provider_that_is_away_is_told_and_asked_again(
    browser: TestClient, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer, provider.issuer = provider.issuer, "elsewhere"
    assert browser.get("/sign-in/oidc", headers=HTML).status_code == 502
    provider.issuer = issuer
    for _ in range(3):
        assert sign_in(browser).status_code == 303
    assert provider.asked.count("/.well-known/openid-configuration") == 2
    monkeypatch.setattr(oidc, "_FRESH_S", -1.0)
    assert sign_in(browser).status_code == 303
    assert provider.asked.count("/.well-known/openid-configuration") == 4


def test_without_a_provider_there_is_nothing(tmp_path: Any) -> None:
    with (
        TestClient(create_app(Settings(data_dir=tmp_path / "other"), engine=False)) as client,
        nobody(client) as browser,
    ):
        assert "/sign-in/oidc" not in browser.get("/sign-in", headers=HTML).text
        for path in ("/sign-in/oidc", "/sign-in/oidc/callback"):
            assert browser.get(path, headers=HTML).status_code == 404


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"oidc_issuer": "http://login.example.com"}, "https"),
        ({"oidc_client_id": None}, "TESSERA_OIDC_CLIENT_ID"),
        ({"oidc_scopes": None}, "TESSERA_OIDC_SCOPES"),
        ({"oidc_scopes": "admins=root"}, "root"),
        ({"oidc_scopes": "admins=admin@Cats"}, "Cats"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(settings: Settings, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Settings(**{**settings.model_dump(), **changes})


def test_a_server_with_a_provider_may_be_reached_by_others(settings: Settings, database: Database) -> None:
    others = settings.model_copy(update={"host": "0.0.0.0"})
    require_access(others, database)
    with pytest.raises(AccessNotSetUp):
        require_access(others.model_copy(update={"oidc_issuer": None}), database)
