"""Versions of a target's cost model: kept, listed, gone back to."""

from __future__ import annotations

from starlette.testclient import TestClient

from service.services import Services
from service.stores import DatabaseCostModelStore
from tuner.cost_model_store import StoredCostModel
from tuner.targets import host_target

FINGERPRINT = host_target().fingerprint


def stored(content: bytes, *, samples: int) -> StoredCostModel:
    return StoredCostModel(
        target_fingerprint=FINGERPRINT,
        features_version=1,
        model=content,
        samples=b"npz",
        sample_count=samples,
        training_set_sha256="ab" * 32,
        rank_quality={"pairwise_accuracy": 0.9},
    )


def test_an_earlier_version_can_be_restored_and_nothing_is_lost(client: TestClient, services: Services) -> None:
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


def test_restoring_the_newest_changes_nothing(client: TestClient, services: Services) -> None:
    DatabaseCostModelStore(services.database, services.blobs).save(stored(b"only", samples=100))
    answer = client.post(f"/api/v1/cost-models/{FINGERPRINT}/versions/1/restore")
    assert [each["version"] for each in answer.json()["versions"]] == [1]


def test_a_version_that_is_not_there_is_a_problem(client: TestClient) -> None:
    answer = client.post("/api/v1/cost-models/host/versions/7/restore")
    assert (answer.status_code, answer.json()["code"]) == (404, "cost_model_not_found")
    assert "lists the versions" in answer.json()["hint"]
