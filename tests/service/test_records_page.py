"""The page of records: filtered, in pages, taken out and brought in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.services import ProjectServices
from service.stores import JobReporter
from tests.acceptance import seed
from tests.service.conftest import start
from tests.service.tuning import claimed
from tests.signed_in import TestClient

ORIGIN = {"origin": "http://localhost"}


@pytest.fixture
def filled(client: TestClient, services: ProjectServices, model_file: Path) -> TestClient:
    """With 240 trials of one job."""
    job_id = start(client, model_file, trials=240)
    assert claimed(services.database) == job_id
    seed.tune(services, job_id, JobReporter(services.database, job_id), trials=240, total=240)
    return client


def rows(page: str) -> list[str]:
    return re.findall(r'<tr class="row">(.*?)</tr>', page, re.DOTALL)


def test_the_fastest_of_every_workload_comes_first(filled: TestClient) -> None:
    page = filled.get("/records").text
    assert "240 records of 4 workloads" in page
    shown = rows(page)
    assert len(shown) == len(seed.TASKS)
    assert {name for name, *_ in seed.TASKS} == {
        name for name, *_ in seed.TASKS for row in shown if name in row and "state-failed" not in row
    }


def test_records_are_searched_and_come_in_pages(filled: TestClient) -> None:
    failed = rows(filled.get("/records?which=failed").text)
    assert failed
    assert all("state-failed" in row for row in failed)
    assert all("matmul" in row for row in rows(filled.get("/records?which=all&q=MATMUL").text))
    seen, address = 0, "/records?which=all"
    while address:
        page = filled.get(address).text
        seen += len(rows(page))
        older = re.search(r'href="(\?[^"]*cursor=[^"]*)">Older', page)
        address = "/records" + older.group(1).replace("&amp;", "&") if older else ""
    assert seen == 240
    assert "No record matches." in filled.get("/records?q=lstm").text
    assert "Nothing was measured on raspberry-pi-4 yet" in filled.get("/records?target=raspberry-pi-4").text
    assert filled.get("/records?target=abacus").status_code == 404
    assert filled.get("/records?which=slowest").status_code == 422


def test_an_export_is_brought_in_again(filled: TestClient) -> None:
    export = filled.get("/api/v1/records?target=host").content
    assert 'href="/api/v1/records?target=host"' in filled.get("/records").text

    def send(content: bytes, target: str = "host") -> str:
        files = {"file": ("records.ndjson", content)}
        answer = filled.post("/records", data={"target": target}, files=files, headers=ORIGIN)
        return f"{answer.status_code} {answer.text}"

    again = send(export)
    assert again.startswith("200")
    assert "0 records added" in again
    assert "240 were here already" in again
    assert "target_mismatch" in send(export, "raspberry-pi-4")
    assert "records_invalid" in send(b"\xff")
    assert "no_file" in filled.post("/records", data={"target": "host"}, headers=ORIGIN).text
