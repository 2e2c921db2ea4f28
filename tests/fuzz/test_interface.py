"""The whole interface under schemathesis: whatever a request says, the answer is documented, and no server error."""

from __future__ import annotations

import json
from collections.abc import Iterator

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.python.asgi import ASGIClient
from schemathesis.specs.openapi import checks

from service.access import policy
from service.access.scopes import AccessScope
from service.app import create_app
from service.settings import Settings
from tests import models
from tests.fuzz.cases import make_case
from tests.fuzz.conftest import CASES, UNLIMITED
from tests.service.contract import document, undocumented
from tests.signed_in import local_token

pytestmark = pytest.mark.fuzz

# Of each operation; all of them together are about as many as there are cases.
_REQUESTS = max(CASES // 50, 4)
# Of each for whom most is refused.
_FEWER_REQUESTS = max(_REQUESTS // 4, 4)


def _line(entry: dict[str, object]) -> bytes:
    return json.dumps(entry).encode()


_CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]


_LINES = st.lists(st.binary(max_size=40) | st.dictionaries(st.text(), st.none() | st.integers() | st.text()).map(_line))
schemathesis.openapi.media_type("application/x-ndjson", _LINES.map(b"\n".join))
schemathesis.openapi.media_type(
    "application/octet-stream", st.binary() | st.integers(0, 10_000).map(lambda number: make_case(number).content)
)
schema = schemathesis.openapi.from_dict(document())
known: dict[str, str] = {"name": "host", "target": "host"}
tokens: dict[AccessScope, str] = {}


@schema.hook
def map_path_parameters(
    context: schemathesis.HookContext, parameters: dict[str, object] | None
) -> dict[str, object] | None:
    """Every other time what is there is asked for; not of the check, which would start a process each time."""
    if parameters is None or context.operation is None or context.operation.label.endswith("/check"):
        return parameters
    return {name: known[name] if name in known and len(str(v)) % 2 else v for name, v in parameters.items()}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ASGIClient]:
    """Of a server without an engine that has a model, and a job that was cancelled."""
    limits = {**UNLIMITED, "failed_sign_ins_per_min": 1_000_000}  # what is asked with has tokens of its own, at random
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), allowed_hosts="testserver", **limits)
    with ASGIClient(create_app(settings, engine=False)) as client:
        client.headers["Authorization"] = f"Bearer {local_token(settings)}"
        uploaded = client.post("/api/v1/models", data=models.perceptron().SerializeToString()).json()
        job = client.post("/api/v1/jobs", json={"model_id": uploaded["id"], "trials": 8}).json()
        assert client.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 202
        known.update(model_id=uploaded["id"], job_id=job["id"])
        for scope in AccessScope:
            made = client.post("/api/v1/tokens", json={"name": scope.value, "scope": scope.value})
            tokens[scope] = made.json()["token"]
        yield client


@schema.parametrize()
@hypothesis.settings(max_examples=_REQUESTS, deadline=None, derandomize=True)
def test_every_answer_is_documented(case: schemathesis.Case, client: ASGIClient) -> None:
    ask(case, client, AccessScope.ADMIN)


@pytest.mark.parametrize("scope", [None, AccessScope.READ, AccessScope.SUBMIT], ids=str)
@schema.parametrize()
@hypothesis.settings(max_examples=_FEWER_REQUESTS, deadline=None, derandomize=True)
def test_with_smaller_scopes_as_well(case: schemathesis.Case, client: ASGIClient, scope: AccessScope | None) -> None:
    """Whatever is asked: what the scope does not include is refused, and with no token everything is."""
    code = ask(case, client, scope)
    need = policy.rules().get((case.method.upper(), case.operation.path))
    if scope is None:
        is_free = policy.rules().get(("GET", case.operation.path)) is policy.FREE  # whatever the method
        assert is_free == (code != "not_signed_in"), code
    elif isinstance(need, AccessScope):
        # What a path is filled with may make it one that leads nowhere.
        refused = code in ("scope_too_small", "route_not_found", "method_not_allowed")
        assert refused or scope.includes(need), code
        assert code != "scope_too_small" or not scope.includes(need)


def ask(case: schemathesis.Case, client: ASGIClient, scope: AccessScope | None) -> str | None:
    """Send a request with a token of that scope, or without one, and hold the answer against the document; the code of
    the problem, where it is one."""
    client.headers.pop("Authorization", None)
    if scope is not None:
        client.headers["Authorization"] = f"Bearer {tokens[scope]}"
    response = case.call(base_url=client.base_url, session=client)
    assert response.status_code < 500, response.text
    media_type = response.headers.get("content-type", [""])[0].partition(";")[0]
    excluded = []
    if media_type == "text/event-stream":  # whose document describes its text, not its events
        excluded.append(checks.response_schema_conformance)
    if scope is None:  # nobody learns which methods there are
        excluded.append(checks.unsupported_method)
    case.validate_response(response, checks=_CHECKS, excluded_checks=excluded)
    found = undocumented(
        case.method, case.formatted_path, status=response.status_code, media_type=media_type, body=response.content
    )
    assert list(found) == []
    if response.status_code < 400 or media_type != "application/problem+json":
        return None
    problem = json.loads(response.content)
    assert problem["hint"]
    return str(problem["code"])
