"""The OpenAPI document: valid, complete, and true to what the code raises."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from service.api.codes import MEDIA_TYPE as PROBLEM
from service.api.examples import EXAMPLES
from tests.service.conftest import ROOT, start, upload
from tests.service.contract import Operation, document, faults, operation_of, operations, undocumented
from tests.signed_in import TestClient
from tests.test_docs import ERROR_CODE

# Codes that no operation of the document answers with, and where they are met.
ELSEWHERE = {
    "in the error of a job": {
        "build_failed",
        "cuda_compiler_missing",
        "forged_result",
        "job_died",
        "job_limit_exceeded",
        "kernel_failed",
        "link_failed",
        "linker_missing",
        "memory_limit_infeasible",
        "network_crashed",
        "network_failed",
        "network_timeout",
        "out_of_memory",
        "reference_failed",
        "tracker_unreachable",
        "unsupported_host",
        "verification_failed",
        "worker_failed",
    },
    "in a command of the command line": {
        "bundle_invalid",
        "database_empty",
        "database_not_empty",
        "dump_invalid",
        "dump_too_new",
        "file_not_found",
        "invalid_option",
        "invalid_settings",
        "job_failed",
        "no_tracker",
        "port_in_use",
        "ray_address_missing",
        "ray_not_installed",
        "server_not_installed",
        "server_not_started",
        "wrong_target",
    },
    "when a server is started": {
        "access_not_set_up",
        "data_dir_in_use",
        "data_dir_readable",
        "database_too_new",
        "driver_not_installed",
        "invalid_blobs_url",
        "invalid_database_url",
        "weak_token",
    },
    "on the side of the client": {"exporter_not_installed", "job_cancelled", "server_unreachable"},
    "on pages of the dashboard": {"no_file", "oidc_unavailable", "page_not_found", "task_not_found", "trial_not_found"},
    "nowhere as it is: the base of errors that have a code of their own": {"conflict", "not_found"},
}


def identity(operation: Operation) -> str:
    return operation.id


every_operation = pytest.mark.parametrize("operation", operations(), ids=identity)


def bodies(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it stands, and the media type's object of every body that an operation takes and answers with."""
    for media_type, content in operation.described.get("requestBody", {}).get("content", {}).items():
        yield f"request {media_type}", content
    for status, response in operation.responses.items():
        for media_type, content in response.get("content", {}).items():
            yield f"{status} {media_type}", content


def problems(operation: Operation) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Status, code and example of every problem of an operation."""
    for status, response in operation.responses.items():
        for code, example in response.get("content", {}).get(PROBLEM, {}).get("examples", {}).items():
            yield int(status), code, example["value"]


def test_it_is_valid() -> None:
    assert document()["openapi"].startswith("3.1")
    validate(document())


def test_it_is_served_as_it_is(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json() == json.loads(json.dumps(document()))


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [each.id for each in operations()]
    assert len(names) == len(set(names)) > 35
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    assert set(names) == EXAMPLES.keys()


@every_operation
def test_an_operation_is_described(operation: Operation) -> None:
    described = operation.described
    tags = {tag["name"] for tag in document()["tags"] if tag["description"]}
    assert described["summary"]
    assert described["description"].endswith((".", ")")), "a description is a sentence"
    assert len(described["tags"]) == 1
    assert set(described["tags"]) <= tags
    for parameter in described.get("parameters", []):
        assert parameter["description"], parameter["name"]
    for status, response in operation.responses.items():
        assert response["description"], status
        assert response["description"] not in ("Successful Response", "Validation Error"), status


@every_operation
def test_an_operation_has_examples_that_fit_their_schemas(operation: Operation) -> None:
    assert any(status.startswith("2") for status in operation.responses)
    for where, content in bodies(operation):
        shown = [content["example"]] if "example" in content else [e["value"] for e in content["examples"].values()]
        assert shown, where
        for example in shown:
            assert faults(content["schema"], example) == [], where
    for parameter in operation.described.get("parameters", []):
        if parameter["in"] == "path":
            assert faults(parameter["schema"], parameter["example"]) == []


@every_operation
def test_an_operation_has_its_codes(operation: Operation) -> None:
    found = list(problems(operation))
    for status, code, example in found:
        assert (example["code"], example["status"]) == (code, status)
        assert example["type"] == code.replace("_", "-")
        assert example["hint"]
    codes = {code for _, code, _ in found}
    assert "internal_error" in codes
    assert ("cross_origin" in codes) == (operation.method != "GET")
    takes_json = "application/json" in operation.described.get("requestBody", {}).get("content", {})
    assert ("bad_request" in codes) == takes_json


def test_every_code_of_the_sources_is_documented_or_met_elsewhere() -> None:
    raised = {
        code
        for folder in ("service", "tuner")
        for path in (ROOT / folder).rglob("*.py")
        for code in ERROR_CODE.findall(path.read_text())
    }
    documented = {code for each in operations() for _, code, _ in problems(each)}
    elsewhere = set.union(*ELSEWHERE.values())
    assert raised - documented - elsewhere == set(), "in no operation of the document"
    assert elsewhere & documented == set(), "both in the document and not"
    assert elsewhere <= raised


def test_examples_of_problems_say_what_the_sources_say() -> None:
    """Every detail and every hint is one that the code can write: a text of it, with something for what it fills in."""
    said = [
        pattern
        for folder in ("service", "tuner")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "codes.py"
        for pattern in texts(ast.parse(path.read_text()))
    ]
    by_others = {("bad_request", "detail"), ("invalid_request", "detail"), ("invalid_budget", "detail")}
    shown = {
        (code, field, example[field])
        for operation in operations()
        for _, code, example in problems(operation)
        for field in ("detail", "hint")
        if (code, field) not in by_others
    }
    assert {each for each in shown if not any(pattern.fullmatch(each[2]) for pattern in said)} == set()


def texts(tree: ast.AST) -> Iterator[re.Pattern[str]]:
    """A pattern for every text and every f-string with at least one word of its own."""
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        literal = [
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None for part in parts
        ]
        if sum(len(text or "") for text in literal) >= 8:
            yield re.compile(".*".join("" if text is None else re.escape(text) for text in _apart(literal)), re.DOTALL)


def _apart(parts: list[str | None]) -> list[str]:
    """The texts between what is filled in."""
    pieces = [""]
    for part in parts:
        if part is None:
            pieces.append("")
        else:
            pieces[-1] += part
    return pieces


def test_a_range_that_is_not_there_is_a_problem(client: TestClient, model_file: Path) -> None:
    address = f"/api/v1/models/{upload(client, model_file)}/content"
    size = model_file.stat().st_size
    part = client.get(address, headers={"range": "bytes=8-15"})
    assert (part.status_code, part.content) == (206, model_file.read_bytes()[8:16])
    behind = client.get(address, headers={"range": f"bytes={size}-"})
    assert (behind.status_code, behind.json()["code"]) == (416, "range_not_satisfiable")
    assert behind.headers["content-range"] == f"bytes */{size}"
    assert client.head(address).headers["content-length"] == str(size)
    for other in ("lines=1-2", "bytes", "bytes=5-2"):
        assert client.get(address, headers={"range": other}).content == model_file.read_bytes(), other


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"{", 422, "invalid_request"), (b"\xff", 400, "bad_request"), (b"[]", 422, "invalid_request")],
)
def test_what_is_no_json_is_a_problem(client: TestClient, content: bytes, status: int, code: str) -> None:
    answer = client.post("/api/v1/jobs", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_numbers_beyond_the_databases_are_refused(client: TestClient, model_file: Path) -> None:
    job_id = start(client, model_file)
    assert client.get(f"/api/v1/jobs/{job_id}/events?after={10**30}").json()["code"] == "invalid_request"
    answer = client.post(f"/api/v1/cost-models/host/versions/{10**30}/restore")
    assert answer.json()["code"] == "invalid_request"


def test_what_is_not_documented_is_found() -> None:
    def told(method: str, path: str, status: int, media_type: str, body: bytes = b"") -> list[str]:
        return list(undocumented(method, path, status=status, media_type=media_type, body=body))

    assert operation_of("GET", "/api/v1/jobs/x/tasks").id == "list_tasks"  # type: ignore[union-attr]
    assert told("GET", "/api/v1/jobs/x", 200, "application/json") == []
    assert told("GET", "/nothing/here", 404, PROBLEM, b"{}") == []
    assert told("GET", "/api/v1/jobs/x", 418, "") == ["get_job answered 418"]
    assert told("GET", "/api/v1/jobs/x", 200, "text/html") == ["get_job answered 200 with text/html"]
    assert told("GET", "/api/v1/jobs/x", 404, PROBLEM, b'{"code": "job_not_found"}') == []
    assert told("GET", "/api/v1/jobs/x", 404, PROBLEM, b'{"code": "gone"}') == ["get_job answered 404 with gone"]
