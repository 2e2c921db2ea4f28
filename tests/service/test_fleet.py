"""Boards that come and go: what is said of them, and which jobs start."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import cli
from service.app import create_app
from service.fleet import FleetView
from service.settings import Settings
from tests.service.conftest import Served, ended, start, until, upload
from tests.service.trackers import FakeTracker, fake_tracker
from tests.signed_in import TestClient
from tests.tuner.measure.boards import free_port
from tuner.measure.tracker import Tracker, TrackerError
from tuner.targets import find_target

PI = "raspberry-pi-4"


@pytest.fixture
def tracker() -> Iterator[FakeTracker]:
    with fake_tracker() as made:
        yield made


@pytest.fixture
def client(settings: Settings, tracker: FakeTracker) -> Iterator[TestClient]:
    """Without an engine, like the usual one, with a tracker."""
    with_tracker = settings.model_copy(update={"tracker": str(tracker.address)})
    with TestClient(create_app(with_tracker, engine=False)) as client:
        yield client


def devices(client: TestClient) -> list[tuple[str, str]]:
    time.sleep(1.1)  # the fleet is asked once a second
    return [(each["target"], each["state"]) for each in client.get("/api/v1/devices").json()["items"]]


def test_boards_are_shown_as_they_come_and_go(client: TestClient, tracker: FakeTracker) -> None:
    assert devices(client) == [("host", "idle")]
    tracker.boards = [(PI, 9090), (PI, 9091)]
    assert devices(client) == [("host", "idle"), (PI, "idle"), (PI, "idle")]
    tracker.busy = 1
    assert devices(client)[1:] == [(PI, "online"), (PI, "online")]
    tracker.boards, tracker.busy = [(PI, 9091)], 1
    assert devices(client)[1:] == [(PI, "busy"), (PI, "lost")]
    page = client.get("/targets").text
    assert f"{PI} at 127.0.0.1:9090" in page
    assert "Lost" in page


def test_a_board_makes_its_target_measurable(client: TestClient, tracker: FakeTracker, model_file: Path) -> None:
    body = {"model_id": upload(client, model_file), "target": PI}
    assert not client.get(f"/api/v1/targets/{PI}").json()["measurable"]
    assert client.post("/api/v1/jobs", json=body).status_code == 409
    tracker.boards = [(PI, 9090)]
    time.sleep(1.1)
    assert client.get(f"/api/v1/targets/{PI}").json()["measurable"]
    assert client.post("/api/v1/jobs", json=body).status_code == 201
    assert devices(client) == [("host", "idle"), (PI, "idle")]
    (_, board) = client.get("/api/v1/devices").json()["items"]
    assert board["waiting_jobs"] == 1


def test_a_job_waits_for_its_board_and_says_so(
    fake: Served, client: TestClient, settings: Settings, tracker: FakeTracker, model_file: Path
) -> None:
    tracker.boards = [(PI, 9090)]
    waiting = start(client, model_file, target=PI)
    client.__exit__(None, None, None)
    tracker.boards = []
    with fake("succeed", tracker=str(tracker.address)) as served:
        told = until(lambda: served.get(f"/api/v1/jobs/{waiting}").json()["waiting_for"])
        assert told == f"a board of {PI} to join the tracker at {tracker.address}"
        assert f"Waiting for a board of {PI}" in served.get(f"/jobs/{waiting}").text
        # It holds up nobody else.
        assert ended(served, start(served, model_file))["state"] == "succeeded"
        job = served.get(f"/api/v1/jobs/{waiting}").json()
        assert (job["state"], job["attempts"], job["started_at"]) == ("queued", 0, None)
        tracker.boards = [(PI, 9090)]
        done = ended(served, waiting)
        assert (done["state"], done["waiting_for"]) == ("succeeded", None)


def test_a_job_whose_boards_are_gone_waits_and_resumes(fake: Served, tracker: FakeTracker, model_file: Path) -> None:
    tracker.boards = [(PI, 9090)]
    with fake("record+noboard,succeed", tracker=str(tracker.address)) as client:
        job_id = start(client, model_file, target=PI)
        job = ended(client, job_id)
        assert (job["state"], job["attempts"], job["error"]) == ("succeeded", 2, None)
        log = " ".join(line["message"] for line in client.get(f"/api/v1/jobs/{job_id}/log").json()["items"])
        assert "No board of x was free" in log
        assert "waits for a board and resumes" in log


def test_a_fleet_without_a_tracker_or_with_a_dead_one_has_no_boards() -> None:
    spec = find_target(PI)
    assert "no tracker is set" in str(FleetView(None).waiting_for(spec))
    assert FleetView(None).boards() == []
    dead = FleetView(Tracker(host="127.0.0.1", port=9))
    assert "cannot be reached" in str(dead.waiting_for(spec))
    assert dead.waiting_for(find_target("host")) is None


@pytest.mark.parametrize("text", ["here", "here:x", "127.0.0.1:99999"])
def test_settings_refuse_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="no address of a tracker"):
        Settings(tracker=text)


def test_the_tracker_of_the_command_ends_with_it(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "service", "devices", "serve", "--port", str(port), "--target", PI]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        tracker = Tracker(host="127.0.0.1", port=port)
        assert until(lambda: _answers(tracker), within_s=60)
        process.terminate()
        printed = process.communicate(timeout=20)[0]
    assert f"--tracker 127.0.0.1:{port} --key {PI} --host 127.0.0.1" in printed
    assert "apache-tvm==" in printed
    assert "private networks or tunnels only" in printed
    assert until(lambda: not _answers(tracker))


def _answers(tracker: Tracker) -> bool:
    with contextlib.suppress(TrackerError):
        tracker.fleet()
        return True
    return False


def bundle_for(target: str, folder: Path) -> Path:
    """As much of a bundle as is read before a board is asked for."""
    path = folder / f"model-{target}.tar.gz"
    manifest = json.dumps({"format": 1, "target": find_target(target).as_dict()}).encode()
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    return path


@pytest.mark.parametrize(
    ("joined", "target", "expected"),
    [
        (None, PI, "No tracker is set"),
        ([], PI, "No board has joined under the key raspberry-pi-4"),
        (["graviton2"], PI, "There are: graviton2."),
        ([PI], "x86-64", "is for x86_64-linux-gnu, boards of raspberry-pi-4 are aarch64-linux-gnu"),
    ],
)
def test_a_bundle_that_no_board_can_run(
    tracker: FakeTracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    joined: list[str] | None,
    target: str,
    expected: str,
) -> None:
    if joined is not None:
        tracker.boards = [(key, 9090) for key in joined]
        monkeypatch.setenv("TESSERA_TRACKER", str(tracker.address))
    with pytest.raises(SystemExit) as ended_with:
        cli.main(["run", str(bundle_for(target, tmp_path)), "--device", PI, "--profile"])
    assert ended_with.value.code == 2
    assert expected in capsys.readouterr().err
