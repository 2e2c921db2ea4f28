"""Real jobs, and everything dies: a process, the server, a node, the head, the database, the disk, the network.

Each number is one case: it says what is hit, in which stage, and when. ``TESSERA_TEST_FAULTS=100`` runs a hundred,
``TESSERA_TEST_FAULTS=40:60`` those from the fortieth on; ``-rP`` shows the stage that each one hit.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.database.tables import Job, JobEvent, TrialRecord
from service.errors import ServiceError
from service.signing import check_signature
from tests import models, signed_in
from tests.fault.installation import Installation, on_a_cluster, on_one_machine
from tests.service.test_engine import job_processes, processes_of
from tuner.bundle import unpack_bundle

pytestmark = [pytest.mark.installation, pytest.mark.timeout(600)]

_FIRST, _, _END = os.environ.get("TESSERA_TEST_FAULTS", "20").rpartition(":")
NUMBERS = range(int(_FIRST or 0), int(_END))
STAGES = ("import", "tune", "build", "verify", "package")
TRIALS = 24
_ENDS_WITHIN_S = 240.0
_LOOK_S = 0.01
# About how long a stage of these jobs is: a moment of it is chosen within.
_SECONDS = {"import": 0.3, "tune": 4.0, "build": 1.0, "verify": 1.5, "package": 0.1}


def kill_the_job(installation: Installation, job_id: str) -> None:
    for process in job_processes(job_id):
        process.kill()


def stop_a_worker(installation: Installation, job_id: str) -> None:
    """SIGSTOP of a runner or a builder; where there is none yet, of the job itself for a moment."""
    own = job_processes(job_id)
    workers = [worker for process in own for worker in process.children(recursive=True) if not worker.children()]
    for process in workers[-1:] or own:
        process.send_signal(signal.SIGSTOP)
    if not workers:
        time.sleep(2)
        for process in own:
            process.send_signal(signal.SIGCONT)


def kill_the_server(installation: Installation, job_id: str) -> None:
    installation.kill_server()


def kill_job_and_server(installation: Installation, job_id: str) -> None:
    installation.kill_server()
    kill_the_job(installation, job_id)


def kill_the_node(installation: Installation, job_id: str) -> None:
    assert installation.node is not None
    installation.node.kill(only="raylet/raylet")


def kill_the_head(installation: Installation, job_id: str) -> None:
    assert installation.head is not None
    installation.head.kill()


def kill_the_database(installation: Installation, job_id: str) -> None:
    assert installation.kill_database is not None
    installation.kill_database()


def cut_the_bucket(installation: Installation, job_id: str) -> None:
    assert installation.proxy is not None
    installation.proxy.cut(for_s=3)


def fill_the_disk(installation: Installation, job_id: str) -> None:
    """Until nothing fits, for three seconds."""
    filler = installation.settings.data_dir / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    time.sleep(3)
    filler.unlink()


ON_ONE_MACHINE = (kill_the_job, stop_a_worker, kill_the_server, kill_job_and_server, fill_the_disk)
ON_A_CLUSTER = (kill_the_job, kill_the_server, kill_the_node, kill_the_head, kill_the_database, cut_the_bucket)


@dataclass(frozen=True)
class Case:
    number: int
    kind: str
    fault: Callable[[Installation, str], None]
    stage: str
    share: float

    def __str__(self) -> str:
        return f"{self.number}-{self.kind}-{self.fault.__name__}-{self.stage}"


def cases(numbers: range) -> list[Case]:
    """Every fault with every stage before any comes a second time."""
    kinds = [("machine", fault) for fault in ON_ONE_MACHINE] + [("cluster", fault) for fault in ON_A_CLUSTER]
    made = []
    for number in numbers:
        kind, fault = kinds[number % len(kinds)]
        stage = STAGES[(number // len(kinds) + number) % len(STAGES)]
        made.append(Case(number, kind, fault, stage, random.Random(number).random()))
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write(models.two_convolutions(), tmp_path_factory.mktemp("model") / "two.onnx")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with on_one_machine(tmp_path_factory.mktemp("machine")) as installation:
        yield installation


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with on_a_cluster(tmp_path_factory.mktemp("cluster")) as installation:
        yield installation


def of_kind(kind: str) -> list[Case]:
    return [case for case in cases(NUMBERS) if case.kind == kind]


class TestOneMachine:
    @pytest.mark.parametrize("case", of_kind("machine"), ids=str)
    def test_nothing_is_lost(self, case: Case, machine: Installation, model: Path, tmp_path: Path) -> None:
        if case.fault is fill_the_disk and not machine.small_disk:
            pytest.skip("no file system can be mounted here")
        survives(case, machine, model, tmp_path)


class TestCluster:
    @pytest.mark.parametrize("case", of_kind("cluster"), ids=str)
    def test_nothing_is_lost(self, case: Case, cluster: Installation, model: Path, tmp_path: Path) -> None:
        survives(case, cluster, model, tmp_path)


def survives(case: Case, installation: Installation, model: Path, tmp_path: Path) -> None:
    """A job goes on to one right end, whatever happens in it."""
    installation.wait_until_ready()
    job_id = submit(installation, model, seed=case.number)
    wait_for(installation, job_id, case.stage)
    time.sleep(case.share * _SECONDS[case.stage])
    acknowledged = trials(installation, job_id)
    case.fault(installation, job_id)
    print(f"case {case.number}: {case.fault.__name__} hit stage {stage(installation, job_id)}")

    job = ended(installation, job_id)
    assert job["state"] == "succeeded", job
    kept = trials(installation, job_id)
    assert {number: kept.get(number) for number in acknowledged} == acknowledged
    assert sorted(kept) == list(range(1, len(kept) + 1))
    assert len(kept) <= TRIALS + 16  # a batch may be measured twice
    with installation.database.read() as session:
        of_job = select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.kind == "state")
        states = [data["state"] for data in session.scalars(of_job)]
    assert states.count("succeeded") == 1
    assert states[-1] == "succeeded"
    verify(installation, job_id, tmp_path)
    assert processes_of(job_id) == []


def submit(installation: Installation, model: Path, *, seed: int) -> str:
    sent = signed_in.post(
        f"{installation.url}/api/v1/models?filename=two.onnx", content=model.read_bytes(), trust_env=False
    )
    body = {"model_id": sent.json()["id"], "trials": TRIALS, "seed": seed}
    made = signed_in.post(f"{installation.url}/api/v1/jobs", json=body, trust_env=False)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def stage(installation: Installation, job_id: str) -> str | None:
    """Read from the database: the server may be dead."""
    while True:
        with contextlib.suppress(SQLAlchemyError, ServiceError), installation.database.read() as session:
            job = session.get(Job, job_id)
            assert job is not None
            return job.stage
        time.sleep(0.2)


def wait_for(installation: Installation, job_id: str, wanted: str) -> None:
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while stage(installation, job_id) != wanted:
        assert time.monotonic() < deadline, f"the job never came to {wanted}"
        time.sleep(_LOOK_S)


def trials(installation: Installation, job_id: str) -> dict[int, tuple[Any, ...]]:
    query = select(TrialRecord).where(TrialRecord.job_id == job_id)
    while True:
        with contextlib.suppress(SQLAlchemyError, ServiceError), installation.database.read() as session:
            return {
                row.number: (row.workload, row.latency_us, row.failure, row.created_at)
                for row in session.scalars(query)
            }
        time.sleep(0.2)


def ended(installation: Installation, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while True:
        with contextlib.suppress(httpx2.HTTPError):
            answer = signed_in.get(f"{installation.url}/api/v1/jobs/{job_id}", trust_env=False)
            if answer.status_code == 200:
                job: dict[str, Any] = answer.json()
                if job["state"] in ("succeeded", "failed", "cancelled"):
                    return job
        assert time.monotonic() < deadline, "the job did not end"
        time.sleep(0.2)


def verify(installation: Installation, job_id: str, folder: Path) -> None:
    """The bundle is whole, signed, and right when it is run."""
    installation.wait_until_ready()
    answer = signed_in.get(f"{installation.url}/api/v1/jobs/{job_id}/artifacts", trust_env=False)
    by_kind = {each["kind"]: each for each in answer.json()["items"]}
    assert set(by_kind) >= {"bundle", "signature", "manifest", "records"}
    content = {}
    for kind in ("bundle", "signature"):
        got = signed_in.get(
            f"{installation.url}/api/v1/artifacts/{by_kind[kind]['id']}/download", trust_env=False, timeout=30
        )
        assert got.status_code == 200, got.text
        content[kind] = got.content
    bundle = folder / by_kind["bundle"]["filename"]
    bundle.write_bytes(content["bundle"])
    check_signature(bundle, content["signature"])
    (folder / "unpacked").mkdir()
    unpack_bundle(bundle, folder / "unpacked")
    done = subprocess.run(
        [sys.executable, str(folder / "unpacked" / "run.py"), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"]
