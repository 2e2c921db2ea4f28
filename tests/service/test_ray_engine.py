"""What only a cluster can do: two nodes at once, nodes that die, a head that dies with all it knew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.engine.ray_cluster import require_ray
from service.errors import ServiceError
from service.settings import Settings
from tests.service.conftest import Served, ended, ready, start, until
from tests.service.ray_cluster import RayCluster, RayNode, ray_cluster, ray_environment
from tests.service.test_engine import is_ready, job_pid, log_of, processes_of
from tests.signed_in import TestClient

pytestmark = [pytest.mark.installation, pytest.mark.timeout(900)]

BOARD = "raspberry-pi-4"


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture
def engine(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    for name, value in ray_environment().items():
        monkeypatch.setenv(name, value)
    return {"engine": "ray", "ray_address": cluster.address, "max_parallel_jobs": 8}


def node_of(nodes: list[RayNode], job_id: str) -> RayNode:
    process = psutil.Process(job_pid(job_id))
    return next(node for node in nodes if node.owns(process))


def state_of(client: TestClient, job_id: str) -> tuple[str, int]:
    job = client.get(f"/api/v1/jobs/{job_id}").json()
    return job["state"], job["attempts"]


def test_two_nodes_run_jobs_of_two_targets_at_once_and_a_third_waits(
    cluster: RayCluster, fake: Served, model_file: Path
) -> None:
    cluster.start_head(cores=0)
    nodes = [cluster.start_node(resources={"target:host": 1}), cluster.start_node(resources={f"target:{BOARD}": 1})]
    with fake("hang") as client:
        ready(client)
        first, second = start(client, model_file), start(client, model_file, target=BOARD)
        assert node_of(nodes, first) is nodes[0]
        assert node_of(nodes, second) is nodes[1]
        assert state_of(client, first) == state_of(client, second) == ("running", 1)
        third = start(client, model_file, seed=3)
        waits = until(lambda: client.get(f"/api/v1/jobs/{third}").json()["waiting_for"])
        assert "target:host is in use" in waits
        client.post(f"/api/v1/jobs/{first}/cancel")
        assert ended(client, first)["state"] == "cancelled"
        assert node_of(nodes, third) is nodes[0]
        for job in (second, third):
            client.post(f"/api/v1/jobs/{job}/cancel")
            assert ended(client, job)["state"] == "cancelled"
            assert processes_of(job) == []


def hosts_of(job_id: str) -> list[psutil.Process]:
    """Without those that wait for them (`tuner.sandbox.keeper`)."""
    commands = [(process, process.cmdline()) for process in processes_of(job_id)]
    return [
        process
        for process, command in commands
        if "tuner.measure.build_host" in command and "tuner.sandbox.enter" not in command
    ]


def test_a_job_has_half_of_the_free_builders_for_as_long_as_it_runs(
    cluster: RayCluster, fake: Served, model_file: Path
) -> None:
    cluster.start_head(cores=0)
    cluster.start_node(cores=2, resources={"target:host": 2})
    lender = cluster.start_node(resources={"builder": 3})
    with fake("hang") as client:
        ready(client)
        first, second = (start(client, model_file, seed=seed) for seed in (1, 2))
        for job, count in ((first, 2), (second, 1)):
            told = json.loads(psutil.Process(job_pid(job)).environ()["TESSERA_BUILD_HOSTS"])
            assert len(told) == count
            hosts = until(lambda job=job, count=count: found if len(found := hosts_of(job)) == count else None)
            # Their own environment says nothing of where they are.
            assert all(any(lender.owns(parent) for parent in process.parents()) for process in hosts)
            listening = {connection.laddr.port for process in hosts for connection in process.net_connections()}
            assert {host["port"] for host in told} == listening
        for job in (first, second):
            client.post(f"/api/v1/jobs/{job}/cancel")
            assert ended(client, job)["state"] == "cancelled"
            until(lambda job=job: not processes_of(job), within_s=20)  # type: ignore[misc]


def test_nobody_waits_for_a_node_that_does_not_answer(cluster: RayCluster, fake: Served, model_file: Path) -> None:
    cluster.start_head(cores=0)
    stuck, _ = (cluster.start_node(resources={tag: 1}) for tag in ("target:host", f"target:{BOARD}"))
    with fake("hang") as client:
        ready(client)
        with stuck.stopped():
            first = start(client, model_file)
            until(lambda: state_of(client, first) == ("running", 1))
            second = start(client, model_file, target=BOARD)
            assert job_pid(second)
            client.post(f"/api/v1/jobs/{first}/cancel")
            assert ended(client, first)["state"] == "cancelled"
        client.post(f"/api/v1/jobs/{second}/cancel")
        assert ended(client, second)["state"] == "cancelled"
        assert processes_of(first) == []


def test_jobs_on_a_node_that_stands_still_keep_nobody_waiting(
    cluster: RayCluster, fake: Served, model_file: Path, settings: Settings
) -> None:
    cluster.start_head(cores=0)
    still, _ = (cluster.start_node(resources={tag: 1}) for tag in ("target:host", f"target:{BOARD}"))
    with fake("hang") as client:
        ready(client)
        first, second = start(client, model_file), start(client, model_file, target=BOARD)
        until(lambda: is_ready(settings, first) and is_ready(settings, second))
        with still.stopped():
            client.post(f"/api/v1/jobs/{first}/cancel")
            client.post(f"/api/v1/jobs/{second}/cancel")
            assert ended(client, second, within_s=5)["state"] == "cancelled"
            assert state_of(client, first) == ("cancelling", 1)
        assert ended(client, first)["state"] == "cancelled"
        assert processes_of(first) == []


def test_a_job_goes_on_elsewhere_when_its_node_dies(cluster: RayCluster, fake: Served, model_file: Path) -> None:
    cluster.start_head(cores=0)
    nodes = [cluster.start_node(resources={"target:host": 1}) for _ in range(2)]
    with fake("record+hang,succeed") as client:
        ready(client)
        job = start(client, model_file)
        node = node_of(nodes, job)
        old = psutil.Process(job_pid(job))
        until(lambda: client.get(f"/api/v1/jobs/{job}/trials").json()["items"])
        node.kill(only="raylet/raylet")
        assert ended(client, job, within_s=90)["state"] == "succeeded"
        assert state_of(client, job) == ("succeeded", 2)
        assert "its place in the Ray cluster is gone" in log_of(client, job)
        trials = client.get(f"/api/v1/jobs/{job}/trials").json()["items"]
        assert [trial["number"] for trial in trials] == [1, 2, 3, 4]
        until(lambda: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE, within_s=20)


def test_jobs_outlive_a_head_that_forgot_them(cluster: RayCluster, fake: Served, model_file: Path) -> None:
    head = cluster.start_head(resources={"target:host": 1})
    with fake("record+hang,succeed") as client:
        ready(client)
        job = start(client, model_file)
        until(lambda: client.get(f"/api/v1/jobs/{job}/trials").json()["items"], within_s=60)
        head.kill()
        until(lambda: client.get("/readyz").status_code == 503, within_s=60)
        told = client.get("/readyz").json()
        assert "Ray cluster" in str(told)
        assert client.get(f"/api/v1/jobs/{job}").status_code == 200
        cluster.start_head(resources={"target:host": 1})
        assert ended(client, job, within_s=120)["state"] == "succeeded"
        assert state_of(client, job) == ("succeeded", 2)


def test_a_cluster_that_is_not_there_is_waited_for(cluster: RayCluster, fake: Served, model_file: Path) -> None:
    with fake("succeed") as client:
        job = start(client, model_file)
        waits = until(lambda: client.get(f"/api/v1/jobs/{job}").json()["waiting_for"], within_s=60)
        assert cluster.address in waits
        cluster.start_head(resources={"target:host": 1})
        assert ended(client, job, within_s=90)["state"] == "succeeded"
        assert state_of(client, job) == ("succeeded", 1)


def test_a_target_without_a_node_is_refused(cluster: RayCluster, fake: Served, model_file: Path) -> None:
    cluster.start_head()
    with fake("succeed") as client:
        ready(client)
        targets = {each["name"]: each["measurable"] for each in client.get("/api/v1/targets").json()["items"]}
        assert targets["host"] is False


def test_an_engine_without_an_address_says_what_to_set() -> None:
    with pytest.raises(ServiceError) as refused:
        require_ray(Settings(engine="ray"))
    assert refused.value.code == "ray_address_missing"
    assert "TESSERA_RAY_ADDRESS" in refused.value.hint
