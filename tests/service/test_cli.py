"""The command line: what it prints, and how it exits."""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from service import cli, embedded
from service.app import create_app
from service.cli.values import InvalidOption, parse_bytes, parse_duration_s, parse_shapes, show_us
from service.settings import Settings
from service.signing import public_key, sign
from service.stores import DatabaseCostModelStore, JobReporter
from tests.acceptance import seed
from tests.service.conftest import FAKE_JOB, services_of, start
from tests.service.versions import POINTS, stored
from tests.signed_in import TestClient
from tuner.events import UntunedTaskMeasured

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tessera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process on a data directory of its own: exit status, output, errors. Jobs are fakes."""
    monkeypatch.setenv("TESSERA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("FAKE_JOB", "succeed")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedded, "create_app", lambda settings: create_app(settings, job_command=FAKE_JOB))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = caught.value.code
        return code if isinstance(code, int) else 0, out, err

    return run


def test_a_database_is_dumped_and_loaded_elsewhere(tessera: Run, model_file: Path, tmp_path: Path) -> None:
    assert tessera("db", "dump", "x.dump")[0] == 2  # there is nothing yet
    assert tessera("tune", str(model_file), "--trials", "4")[0] == 0
    status, _, err = tessera("db", "dump", "x.dump")
    assert status == 0, err
    assert "1 jobs" in err
    status, _, err = tessera("db", "load", "x.dump")
    assert status == 2
    assert "not empty" in err
    status, out, err = tessera("db", "load", "x.dump", "--data-dir", "other", "--json")
    assert status == 0, err
    assert json.loads(out)["rows"]["jobs"] == 1
    assert len(json.loads(tessera("jobs", "list", "--json", "--data-dir", "other")[1])) == 1
    assert not list(tmp_path.glob(".x.dump*"))


def test_a_database_server_that_is_away_is_one_line(tessera: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/tessera")
    for command in (["serve"], ["db", "check"], ["db", "dump", "-"]):
        status, _, err = tessera(*command)
        assert status == 3, err
        assert "does not answer" in err
        assert "secret" not in err


def test_tune_prints_progress_and_leaves_a_bundle(tessera: Run, model_file: Path, tmp_path: Path) -> None:
    status, out, err = tessera("tune", str(model_file), "--trials", "4", "--out", "bundles", "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["job"]["state"] == "succeeded"
    assert (tmp_path / answer["bundle"]).is_file()
    downloaded = sorted(path.name for path in (tmp_path / "bundles").iterdir())
    assert downloaded == ["perceptron-host.tar.gz", "perceptron-host.tar.gz.sig"]
    assert "stage: tune" in err
    job_id = answer["job"]["id"]

    listed = json.loads(tessera("jobs", "list", "--json")[1])
    assert [job["id"] for job in listed] == [job_id]
    shown = json.loads(tessera("jobs", "show", job_id, "--json")[1])
    assert shown["tasks"][0]["name"] == "dense"
    assert "perceptron" in tessera("jobs", "list")[1]
    assert tessera("download", job_id, "--out", "again")[0] == 0
    assert (tmp_path / "again" / "perceptron-host.tar.gz").is_file()
    compared = json.loads(tessera("compare", job_id, job_id, "--json")[1])
    assert (compared["latency_ratio"], compared["within_spread"]) == (1.0, True)


@pytest.mark.parametrize("behaviour", ["refuse", "raise"])
def test_a_failed_job_exits_with_one_and_its_hint(
    tessera: Run, model_file: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setenv("FAKE_JOB", behaviour)
    status, out, err = tessera("tune", str(model_file))
    assert status == 1
    assert "Hint:" in err
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["tune", "nowhere.onnx"], 2, "There is no file"),
        (["tune", "{model}", "--trials", "0"], 2, "must be positive"),
        (["tune", "{model}", "--trials", "-3"], 2, "must be positive"),
        (["tune", "{model}", "--time", "soon"], 2, "duration"),
        (["tune", "{model}", "--time", "0"], 2, "duration"),
        (["tune", "{model}", "--memory-limit", "big"], 2, "size"),
        (["tune", "{model}", "--input-shape", "x=axb"], 2, "input shape"),
        (["tune", "{model}", "--target", "toaster"], 2, "no target named"),
        (["tune", "{model}", "--samples", "none.npz"], 2, "There is no file"),
        (["tune", "{model}", "--measure", "guess"], 2, "device or none"),
        (["tune", "{text}"], 1, "not a whole ONNX file"),
        (["check", "{text}"], 1, "not a whole ONNX file"),
        (["jobs", "show", "nope"], 2, "There is no job"),
        (["jobs", "cancel", "nope"], 2, "There is no job"),
        (["download", "nope"], 2, "There is no job"),
        (["targets", "show", "toaster"], 2, "no target named"),
        (["targets", "add", "{text}"], 2, "does not describe targets"),
        (["tune", "{model}", "--target", "raspberry-pi-4"], 2, "No device here can measure"),
        (["cost-models", "show", "host"], 2, "no cost model"),
        (["cost-models", "restore", "host", "3"], 2, "no version 3"),
        (["records", "import", "{text}"], 1, "is no record"),
        (["run", "{text}"], 1, "unpacked"),
        (["verify", "{text}"], 1, ""),
        (["jobs", "list", "--url", "http://127.0.0.1:9"], 3, "does not answer"),
        (["tune", "{model}", "--url", "http://127.0.0.1:9"], 3, "does not answer"),
        (["jobs", "list", "--limit", "0"], 2, ""),
        (["nonsense"], 2, ""),
    ],
)
def test_errors_have_a_message_a_hint_and_a_status(
    tessera: Run, model_file: Path, tmp_path: Path, arguments: list[str], status: int, told: str
) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("this is text\n")
    result = tessera(*[part.format(model=model_file, text=text) for part in arguments])
    assert (result[0], told in result[2]) == (status, True), result
    if told:
        assert "Hint:" in result[2]
    assert result[1] == ""


def test_targets_are_added_from_a_file(tessera: Run, tmp_path: Path) -> None:
    boards = tmp_path / "boards.toml"
    tvm = 'tvm = { kind = "llvm", mtriple = "aarch64-linux-gnu", num-cores = 2 }'
    boards.write_text(
        "".join(f'[{name}]\ntriple = "aarch64-linux-gnu"\n{tvm}\nthreads = 2\n' for name in ("one", "two"))
    )
    status, output, _ = tessera("targets", "add", str(boards))
    assert (status, output.count("Added")) == (0, 2)
    shown = json.loads(tessera("targets", "show", "two", "--json")[1])
    assert (shown["device"], shown["threads"], shown["builtin"]) == ("two", 2, False)
    again = tessera("targets", "add", str(boards))
    assert (again[0], "a target named 'one' already" in again[2]) == (1, True)


def test_reading_commands_speak_json(tessera: Run) -> None:
    assert json.loads(tessera("targets", "list", "--json")[1])[0]["name"] == "host"
    assert json.loads(tessera("targets", "show", "host", "--json")[1])["fingerprint"]
    assert json.loads(tessera("devices", "list", "--json")[1])[0]["state"] == "idle"
    assert json.loads(tessera("cost-models", "list", "--json")[1]) == []
    assert json.loads(tessera("jobs", "list", "--json")[1]) == []
    assert tessera("records", "export") == (0, "", "")
    assert json.loads(tessera("doctor", "--json")[1])["checks"]


def test_cost_models_are_shown_with_their_figures_in_columns(tessera: Run, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(data_dir=tmp_path / "data"), engine=False)) as client:
        services = services_of(client)
        store = DatabaseCostModelStore(services.database, services.blobs)
        store.save(stored(b"young", samples=40, rank_quality={}))
        store.save(stored(b"grown", samples=400, held_out=POINTS))
    status, out, _err = tessera("cost-models", "show", "host")
    header, _rule, newest, oldest = [line for line in out.splitlines() if line.strip()]
    assert (status, re.split(r"  +", header.strip())) == (
        0,
        ["version", "samples", "trained", "pairwise accuracy", "top-1", "top-5"],
    )
    assert (newest.split()[:2], newest.split()[-3:]) == (["2", "400"], ["0.900", "0.800", "0.950"])
    assert (oldest.split()[:2], oldest.split()[-3:]) == (["1", "40"], ["–", "–", "–"])
    detail = json.loads(tessera("cost-models", "show", "host", "--json")[1])
    assert len(detail["held_out"]) == len(POINTS)
    assert [version["version"] for version in detail["versions"]] == [2, 1]
    assert "0.950" in tessera("cost-models", "list")[1]


def test_a_job_is_shown_with_what_its_tasks_reach(tessera: Run, model_file: Path, tmp_path: Path) -> None:
    with TestClient(create_app(Settings(data_dir=tmp_path / "data"), engine=False)) as client:
        services, job_id = services_of(client), start(client, model_file)
        reporter = JobReporter(services.database, job_id)
        seed.tune(services, job_id, reporter, trials=32, total=64)
        reporter.emit(UntunedTaskMeasured(task="task0", latency_us=28_750.0))
    status, out, _err = tessera("jobs", "show", job_id)
    assert status == 0
    assert "412 GFLOP/s, 18.4 GB/s of memory" in out
    lines = {line.split()[0]: re.split(r"  +", line.strip()) for line in out.splitlines() if line.strip()}
    header = lines["task"]
    told = dict(zip(header, lines["conv2d_3x3_56_relu"], strict=True))
    assert re.fullmatch(r"\d+%", told["roofline"])
    assert re.fullmatch(r"\d+\.\d\d×", told["× untuned"])
    assert dict(zip(header, lines["conv2d_1x1_28"], strict=True))["× untuned"] == "–"
    shown = json.loads(tessera("jobs", "show", job_id, "--json")[1])
    assert shown["roofline"] == {"peak_gflops": 412.0, "bandwidth_gb_s": 18.4}
    assert [task["untuned_us"] for task in shown["tasks"]][:2] == [28_750.0, None]


def test_db_check_says_whether_to_upgrade(tessera: Run) -> None:
    status, out, _err = tessera("db", "check")
    assert status == 1
    assert "tessera db upgrade" in out
    assert tessera("db", "upgrade")[0] == 0
    assert json.loads(tessera("db", "check", "--json")[1])["ok"] is True


def test_a_server_that_owns_the_data_is_used(tessera: Run, tmp_path: Path) -> None:
    with embedded.serve_embedded(Settings(data_dir=tmp_path / "data")) as url:
        status, out, err = tessera("jobs", "list", "--json")
        assert (status, json.loads(out), err) == (0, [], "")
        refused = tessera("serve", "--port", "0")
        assert refused[0] == 1
        assert url in refused[2]


def test_a_bundle_that_tries_to_leave_its_folder_is_refused(tessera: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "evil.tar.gz"
    with tarfile.open(bundle, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"))
    status, _out, err = tessera("run", str(bundle))
    assert status == 1
    assert "Hint:" in err
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0), ("1d", 86400.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(("text", "count"), [("2MiB", 2**21), ("512k", 2**19), ("3MB", 3_000_000), ("7", 7)])
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


def test_shapes() -> None:
    assert parse_shapes(["x=1x3x8", "a=b=2", "s="]) == {"x": [1, 3, 8], "a=b": [2], "s": []}
    for wrong in ("x", "=1", "x=1x", "x=0", "x=1xx2", "x=-1"):
        with pytest.raises(InvalidOption):
            parse_shapes([wrong])


def test_latencies_have_three_digits_and_a_unit() -> None:
    assert [show_us(v) for v in (None, 4.12, 412.3, 9999.0, 18400.0)] == [
        "–",
        "4.12 µs",
        "412 µs",
        "9999 µs",
        "18.4 ms",
    ]
    assert show_us(412.0, 6.0) == "412 ± 6 µs"


def test_help_answers_without_loading_the_service() -> None:
    import subprocess

    script = (
        "import sys\nfrom service.cli import main\ntry:\n    main(['--help'])\n"
        "finally:\n    print([m for m in ('fastapi', 'sqlalchemy', 'uvicorn', 'numpy', 'tvm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout


def test_verify_tells_whose_signature_it_is(tessera: Run, tmp_path: Path) -> None:
    bundle, settings = tmp_path / "model.tar.gz", Settings(data_dir=tmp_path / "data")
    bundle.write_bytes(b"no bundle: its signature is looked at first")
    signature = bundle.with_name("model.tar.gz.sig")
    signature.write_bytes(sign(settings, bundle))
    theirs = public_key(Settings(data_dir=tmp_path / "theirs")).text
    assert "not a readable bundle" in tessera("verify", str(bundle))[2]
    for arguments, told in ((["--key", theirs], "not by"), (["--key", "abc"], "no public key")):
        status, _, error = tessera("verify", str(bundle), *arguments)
        assert (status, told in error) == (1, True), error
    bundle.write_bytes(b"something else")
    status, _, error = tessera("verify", str(bundle))
    assert (status, "is not what key" in error) == (1, True)
    signature.unlink()
    status, _, error = tessera("verify", str(bundle), "--key", theirs)
    assert (status, "has no signature" in error) == (1, True)
