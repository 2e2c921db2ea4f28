"""Which scope a route needs: of every route there is, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import iter_route_contexts

from service.access import policy
from service.access.scopes import AccessScope
from service.app import create_app
from service.settings import Settings
from tests.service.access.conftest import HTML, ORIGIN, Tokens, nobody
from tests.service.contract import operations
from tests.signed_in import TestClient

SCOPES = [None, *AccessScope]


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of everything that an application answers at."""
    for each in iter_route_contexts(create_app(engine=False).routes):
        if each.methods is None:  # a folder of files
            yield "GET", f"{each.path}/{{path:path}}"
            continue
        for method in each.methods - {"HEAD"}:
            assert each.path is not None
            yield method, each.path


ROUTES = sorted(set(routes()))


def test_every_route_is_in_a_rule_and_every_rule_is_of_a_route() -> None:
    assert len(ROUTES) > 80
    assert set(ROUTES) - policy.rules().keys() == set(), "routes without a rule"
    assert policy.rules().keys() - set(ROUTES) == set(), "rules without a route"


def test_every_operation_of_the_document_says_what_it_needs() -> None:
    for operation in operations():
        need = policy.rules()[operation.method, operation.path]
        named = {scope for each in operation.described["security"] for scopes in each.values() for scope in scopes}
        assert named == ({need.value} if isinstance(need, AccessScope) else set()), operation.id
        assert ("scope_too_small" in operation.codes(403)) == (need in (AccessScope.SUBMIT, AccessScope.ADMIN))
        assert ("not_signed_in" in operation.codes(401)) == isinstance(need, AccessScope)


def address(path: str) -> str:
    """A path whose places are filled with ids that nothing has."""
    return re.sub(r"\{(\w+)(:path)?\}", lambda found: "7" if found[1] in ("version", "number") else "nothing", path)


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_what_each_scope_may_ask_for(client: TestClient, token: Tokens, scope: AccessScope | None) -> None:
    """Every route with every scope: refused by the gate, or not. What comes of it behind the gate is its own matter."""
    header = token(scope.value) if scope else {}
    with nobody(client) as anybody:
        for method, path in ROUTES:
            need = policy.rules()[method, path]
            answer = anybody.request(method, address(path), headers={**header, **ORIGIN})
            code = answer.json().get("code") if "problem+json" in answer.headers.get("content-type", "") else None
            if need is policy.FREE:
                assert code not in ("not_signed_in", "scope_too_small"), (method, path)
            elif scope is None:
                assert (answer.status_code, code) == (401, "not_signed_in"), (method, path)
                assert answer.headers["www-authenticate"].startswith("Bearer")
            elif isinstance(need, AccessScope) and scope.includes(need):
                assert code not in ("not_signed_in", "scope_too_small"), (method, path)
            else:
                assert (answer.status_code, code) == (403, "scope_too_small"), (method, path)


def test_a_route_that_was_forgotten_is_refused(settings: Settings) -> None:
    app = create_app(settings, engine=False)
    router = APIRouter()

    @router.get("/forgotten/{name}")
    def answer(name: str) -> dict[str, Any]:
        return {"secret": name}

    @router.put("/api/v1/models")
    def change() -> None:
        raise AssertionError("this is not to be reached")

    app.include_router(router)
    with TestClient(app) as client:
        refused = client.get("/forgotten/x")
        assert (refused.status_code, refused.json()["code"]) == (403, "scope_too_small")
        assert "No rule allows GET /forgotten/x." in refused.text
        assert client.put("/api/v1/models").status_code == 403
        # What is nowhere is told to be nowhere.
        assert client.get("/nothing/here").json()["code"] == "route_not_found"
        assert client.delete("/api/v1/models").json()["code"] == "method_not_allowed"


def test_where_several_rules_fit_the_largest_scope_is_needed() -> None:
    assert policy.needed("POST", "/jobs/cancel") is AccessScope.SUBMIT
    assert policy.needed("HEAD", "/api/v1/models/x/content") is AccessScope.READ
    assert policy.needed("GET", "/static/vendor/uPlot.esm.js") is policy.FREE
    assert policy.needed("GET", "/api/v1/nothing") is None
    assert policy.needed("POST", "/static/mark.svg") is None


def test_browsers_are_led_to_the_sign_in_page_and_back(client: TestClient, token: Tokens) -> None:
    with nobody(client) as browser:
        led = browser.get("/jobs/j1?task=a%26b", headers=HTML)
        assert (led.status_code, led.headers["location"]) == (303, "/sign-in?next=%2Fjobs%2Fj1%3Ftask%3Da%2526b")
        assert browser.get("/", headers=HTML).headers["location"] == "/sign-in"
        page = browser.get(led.headers["location"], headers=HTML)
        assert '<input type="hidden" name="next" value="/jobs/j1?task=a%26b">' in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        # A form that was filled in before the session ended, and everything of the interface, is told what is wrong.
        assert browser.post("/new", headers={**HTML, **ORIGIN}).status_code == 401
        assert browser.get("/api/v1/jobs", headers=HTML).json()["code"] == "not_signed_in"
        refused = browser.get("/settings", headers={**HTML, **token("read")})
        assert refused.status_code == 403
        assert "This needs the scope admin" in refused.text


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("localhost/static/x?", "/api/v1/jobs"),
        ("localhost/healthz#", "/api/v1/jobs"),
        ("localhost", "/api/v1/jobs%3F/static/x"),
        ("localhost", "/healthz%3F/../api/v1/jobs"),
        ("localhost", "/static/../api/v1/jobs"),
        ("localhost", "/static/%2e%2e/api/v1/jobs"),
        ("localhost", "//static/x"),
        ("localhost", "/healthz%0A"),
        ("localhost", "/api/v1/jobs%0A"),
        ("localhost", "/api/v1/jobs/"),
        ("localhost", "/API/v1/jobs"),
    ],
)
def test_no_spelling_leads_past_the_gate(client: TestClient, host: str, path: str) -> None:
    """The rule that is applied is that of the path by which the route is found."""
    with nobody(client) as anybody:
        request = anybody.build_request("GET", "/", headers={"host": host})
        request.url = request.url.copy_with(raw_path=path.encode())
        answer = anybody.send(request)
    assert answer.status_code in (401, 404, 421), answer.text
