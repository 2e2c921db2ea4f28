"""Versions of a target's cost model: kept, listed, gone back to."""

from __future__ import annotations

import re

from service.services import ProjectServices
from service.stores import DatabaseCostModelStore
from tests.service.versions import FINGERPRINT, POINTS, QUALITY, stored
from tests.signed_in import TestClient


def test_an_earlier_version_can_be_restored_and_nothing_is_lost(client: TestClient, services: ProjectServices) -> None:
    store = DatabaseCostModelStore(services.database, services.blobs)
    assert [store.save(stored(b"good", samples=100)), store.save(stored(b"bad", samples=200))] == [1, 2]
    answer = client.post("/api/v1/cost-models/host/versions/1/restore")
    assert answer.status_code == 200
    assert [each["version"] for each in answer.json()["versions"]] == [3, 2, 1]
    assert [each["sample_count"] for each in answer.json()["versions"]] == [100, 200, 100]
    loaded = store.load(FINGERPRINT)
    assert loaded is not None
    assert loaded.model == b"good"
    assert store.save(stored(b"next", samples=300)) == 4


def test_held_out_points_are_kept_with_their_version(client: TestClient, services: ProjectServices) -> None:
    store = DatabaseCostModelStore(services.database, services.blobs)
    store.save(stored(b"first", samples=100, held_out=POINTS))
    store.save(stored(b"second", samples=200))
    loaded = store.load(FINGERPRINT)
    assert loaded is not None
    assert loaded.held_out == ()
    store.restore(FINGERPRINT, 1)
    loaded = store.load(FINGERPRINT)
    assert loaded is not None
    assert loaded.held_out == POINTS


def test_the_detail_has_the_points_of_the_newest_version_and_lists_have_none(
    client: TestClient, services: ProjectServices
) -> None:
    store = DatabaseCostModelStore(services.database, services.blobs)
    store.save(stored(b"first", samples=100))
    store.save(stored(b"second", samples=200, held_out=POINTS))
    detail = client.get("/api/v1/cost-models/host").json()
    assert detail["held_out"] == [
        {"workload": 0, "measured_log2": 0.0, "predicted_log2": 0.125},
        {"workload": 1, "measured_log2": -2.5, "predicted_log2": -1.75},
    ]
    assert [each["rank_quality"] for each in detail["versions"]] == [QUALITY, QUALITY]
    assert all("held_out" not in each for each in detail["versions"])
    (listed,) = client.get("/api/v1/cost-models").json()["items"]
    assert listed["version"] == 2
    assert "held_out" not in listed
    assert client.get(f"/api/v1/cost-models/{FINGERPRINT}").json() == detail


def test_the_page_restores_a_version_without_scripts(client: TestClient, services: ProjectServices) -> None:
    store = DatabaseCostModelStore(services.database, services.blobs)
    store.save(stored(b"good", samples=100, held_out=POINTS))
    store.save(stored(b"bad!", samples=200, training_set_sha256="cd" * 32))
    page = client.get("/cost-models/host").text
    assert "Only the figures of version 2 were kept" in page
    address = "/cost-models/host/versions/1/restore"
    assert re.findall(r'<form action="([^"]+)" method="post">', page.partition("<footer>")[0]) == [address]
    answer = client.post(address, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/cost-models/host")
    page = client.get("/cost-models/host").text
    assert "the same as version 1" in page
    assert page.count('class="dot"') == len(POINTS)
    refused = client.post(address, headers={"Origin": "https://elsewhere.example"})
    assert refused.status_code == 403
    assert client.get("/api/v1/cost-models/host").json()["version"] == 3


def test_the_page_says_why_there_is_nothing_to_show(client: TestClient, services: ProjectServices) -> None:
    for target in ("host", FINGERPRINT):
        page = client.get(f"/cost-models/{target}")
        assert (page.status_code, "No cost model for host yet" in page.text) == (200, True)
    assert client.get("/cost-models/toaster").status_code == 404
    missing = client.post("/cost-models/host/versions/7/restore")
    assert (missing.status_code, "no version 7" in missing.text) == (404, True)
    store = DatabaseCostModelStore(services.database, services.blobs)
    store.save(stored(b"young", samples=40, rank_quality={}))
    page = client.get("/cost-models/host")
    assert "Not measured" in page.text
    assert "two workloads with eight measured schedules" in page.text
    assert 'class="scatter"' not in page.text


def test_a_long_history_is_cut(client: TestClient, services: ProjectServices) -> None:
    store = DatabaseCostModelStore(services.database, services.blobs)
    for number in range(103):
        store.save(stored(b"model", samples=number))
    page = client.get("/cost-models/host").text
    assert page.count('id="version-') == 100
    assert "3 older versions" in page


def test_a_model_of_another_machine_has_a_page(client: TestClient, services: ProjectServices) -> None:
    fingerprint = "0123456789abcdef"
    store = DatabaseCostModelStore(services.database, services.blobs)
    store.save(stored(b"theirs", samples=100, target_fingerprint=fingerprint))
    assert f'href="/cost-models/{fingerprint}"' in client.get("/cost-models").text
    page = client.get(f"/cost-models/{fingerprint}")
    assert page.status_code == 200
    assert "another machine" in page.text


def test_restoring_the_newest_changes_nothing(client: TestClient, services: ProjectServices) -> None:
    DatabaseCostModelStore(services.database, services.blobs).save(stored(b"only", samples=100))
    answer = client.post(f"/api/v1/cost-models/{FINGERPRINT}/versions/1/restore")
    assert [each["version"] for each in answer.json()["versions"]] == [1]


def test_a_version_that_is_not_there_is_a_problem(client: TestClient) -> None:
    answer = client.post("/api/v1/cost-models/host/versions/7/restore")
    assert (answer.status_code, answer.json()["code"]) == (404, "cost_model_not_found")
    assert "lists the versions" in answer.json()["hint"]
