"""The client for scripts and notebooks, against a live server with fake jobs, and against one that stumbles."""

from __future__ import annotations

import importlib
import re
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import pytest
import uvicorn
from pydantic import ValidationError

from service.app import create_app
from service.client import (
    AsyncTessera,
    ExporterNotInstalled,
    JobCancelled,
    JobFailed,
    RequestFailed,
    ServerUnreachable,
    Tessera,
    transport,
)
from service.settings import Settings
from tests import signed_in
from tests.service.conftest import FAKE_JOB

T = TypeVar("T")


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """A server on a port of its own, its jobs fakes; its URL. Clients find its token in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(create_app(settings, job_command=FAKE_JOB), host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    address = f"http://127.0.0.1:{port}"
    signed_in.remember(address, settings)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TESSERA_TOKEN", signed_in.token_of(address))
            yield address
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def behaves(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda behaviour: monkeypatch.setenv("FAKE_JOB", behaviour)


@pytest.fixture
def url(settings: Settings, behaves: Callable[[str], None]) -> Iterator[str]:
    behaves("succeed")
    with serving(settings) as address:
        yield address


def test_a_file_becomes_a_bundle(url: str, model_file: Path, tmp_path: Path) -> None:
    with Tessera(url) as tessera:
        job = tessera.tune(model_file, trials=8, seed=3)
        kinds = [kind for kind, _ in job.watch()]
        assert kinds[0] == "state"
        assert job.done
        assert job.wait(timeout_s=30).state == "succeeded"
        bundle = job.download(tmp_path / "out")
        assert bundle.name == "perceptron-host.tar.gz"
        assert {path.name for path in bundle.parent.iterdir()} >= {bundle.name}
        assert tessera.job(job.id).info == job.info
        assert [each.id for each in tessera.jobs()] == [job.id]
        assert "host" in [target.name for target in tessera.targets()]
        assert f"<Job {job.id}: perceptron" in repr(job)
        assert f"{url}/jobs/{job.id}" in job._repr_html_()
        assert "<progress" not in job._repr_html_()


def test_an_uploaded_model_is_tuned_twice(url: str, model_file: Path) -> None:
    with Tessera(url) as tessera:
        model = tessera.upload(model_file)
        jobs = [tessera.tune(model, trials=8) for _ in range(2)]
        assert jobs[0].id != jobs[1].id
        assert {job.wait(timeout_s=30).info.model_id for job in jobs} == {model.id}


def test_a_failed_job_raises_what_it_failed_of(
    url: str, model_file: Path, tmp_path: Path, behaves: Callable[[str], None]
) -> None:
    behaves("refuse")
    with Tessera(url) as tessera:
        job = tessera.tune(model_file, trials=8)
        with pytest.raises(JobFailed) as caught:
            job.wait(timeout_s=30)
        assert job.info.error is not None
        assert (caught.value.code, caught.value.hint) == (job.info.error.code, job.info.error.hint)
        with pytest.raises(JobFailed, match="has no bundle"):
            job.download(tmp_path)


def test_waiting_can_end_before_the_job(url: str, model_file: Path, behaves: Callable[[str], None]) -> None:
    behaves("hang")
    with Tessera(url) as tessera:
        job = tessera.tune(model_file, trials=8)
        with pytest.raises(TimeoutError, match="still"):
            job.wait(timeout_s=0.5)
        assert "<progress" in job._repr_html_()
        job.cancel()
        with pytest.raises(JobCancelled):
            job.wait(timeout_s=30)


def run_apart(function: Callable[[], Awaitable[T]]) -> T:
    """A coroutine's result, from a thread without an event loop: a browser of other tests may have left one in this."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, function).result()


def test_without_a_loop_of_ones_own(url: str, model_file: Path, tmp_path: Path) -> None:
    async def run() -> Path:
        async with AsyncTessera(url) as tessera:
            model = await tessera.upload(model_file)
            jobs = [await tessera.tune(model, trials=8) for _ in range(2)]
            async with anyio.create_task_group() as group:
                for job in jobs:
                    group.start_soon(job.wait)
            kinds = [kind async for kind, _ in jobs[0].watch()]
            assert kinds[0] == "state"
            assert [each.id for each in await tessera.jobs()] == [jobs[1].id, jobs[0].id]
            return await jobs[0].download(tmp_path)

    assert run_apart(run).is_file()


def test_errors_carry_code_and_hint(url: str, model_file: Path) -> None:
    with Tessera(url) as tessera:
        with pytest.raises(RequestFailed) as caught:
            tessera.tune(model_file, target="abacus")
        assert caught.value.code == "unknown_target"
        assert "tessera targets list" in str(caught.value.hint)


def test_the_quick_start_of_the_docs_runs(
    url: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    first, _, second = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    model_file.rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    exec(first.replace("http://127.0.0.1:8765", url), {})
    assert capsys.readouterr().out.splitlines()[-1] == "bundles/model-host.tar.gz"
    names: dict[str, Any] = {}
    exec(second.replace("http://127.0.0.1:8765", url), names)
    run_apart(names["main"])
    assert capsys.readouterr().out.splitlines() == ["bundles/model-host.tar.gz"]


@pytest.mark.torch
def test_a_pytorch_module_is_exported_on_this_side(url: str) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU()).eval()
    with Tessera(url) as tessera:
        model = tessera.export_torch(module, (torch.zeros(2, 8),), name="tiny")
        assert model.name == "tiny"
        assert tessera.tune(model, trials=8).wait(timeout_s=30).state == "succeeded"
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    documented: dict[str, Any] = {}
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1]
    exec(example.replace("Tessera()", f"Tessera({url!r})"), documented)
    assert documented["model"].name == "small"


@pytest.mark.parametrize("lacking", ["torch", "onnxscript"])
def test_what_exporting_lacks_is_named(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    def export(*_: object, **__: object) -> None:
        importlib.import_module("onnxscript")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(onnx=SimpleNamespace(export=export)))
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(ExporterNotInstalled, match=f"{lacking} is not installed") as caught:
        Tessera("http://127.0.0.1:9").export_torch(None, ())
    assert (caught.value.code, caught.value.hint) == ("exporter_not_installed", "pip install torch onnxscript")


def test_a_module_that_the_exported_one_lacks_is_another_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: object, **__: object) -> None:
        importlib.import_module("a_module_that_is_nowhere")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(onnx=SimpleNamespace(export=export)))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        Tessera("http://127.0.0.1:9").export_torch(None, ())


@contextmanager
def stumbling(answers: list[int | None]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers with these statuses, one after another (None: it hangs up), then with an empty page."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(f"{self.command} {self.path}" + (f" {len(sent)} bytes" if sent else ""))
            status = answers.pop(0) if answers else 200
            if status is None:
                self.connection.close()
                return
            body = b'{"items": [], "next_cursor": null}'
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client waited between attempts, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", waited.append)
    return waited


def test_what_can_be_sent_again_is(pauses: list[float]) -> None:
    with stumbling([None, 503, 429]) as (url, seen), Tessera(url) as tessera:
        assert tessera.targets() == []
        assert seen == ["GET /api/v1/targets"] * 4
    assert pauses == [0.25, 0.5, 1.0]


def test_after_five_times_it_is_told(pauses: list[float]) -> None:
    with stumbling([503] * 10) as (url, seen), Tessera(url) as tessera:
        with pytest.raises(RequestFailed) as caught:
            tessera.targets()
        assert caught.value.status == 503
        assert len(seen) == 6
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_an_upload_is_sent_again_whole_and_a_restored_version_is_not(pauses: list[float], model_file: Path) -> None:
    size = model_file.stat().st_size
    with stumbling([503]) as (url, seen), Tessera(url) as tessera:
        with pytest.raises(ValidationError):  # this server's answers are no models
            tessera.upload(model_file)
        assert seen == [f"POST /api/v1/models?filename={model_file.name} {size} bytes"] * 2
    with stumbling([503]) as (url, seen), Tessera(url) as tessera:
        with pytest.raises(RequestFailed):
            tessera.client.restore_cost_model("host", 1)
        assert len(seen) == 1


def test_a_stream_that_does_not_come_back_is_given_up_after_a_minute(pauses: list[float]) -> None:
    with stumbling([None, 503]) as (url, seen), Tessera(url) as tessera:  # then streams that end before the job does
        with pytest.raises(ServerUnreachable, match="closed the stream"):
            list(tessera.client.events("a-job"))
        assert seen == ["GET /api/v1/jobs/a-job/events"] * 13
    assert pauses[:6] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert 60 < sum(pauses) < 90
    with stumbling([404]) as (url, seen), Tessera(url) as tessera:
        with pytest.raises(RequestFailed):
            list(tessera.client.events("no-such-job"))
        assert len(seen) == 1


def test_nothing_there_says_how_to_start_it(pauses: list[float]) -> None:
    with pytest.raises(ServerUnreachable) as caught:
        Tessera("http://127.0.0.1:9").jobs()
    assert "tessera serve" in str(caught.value.hint)
    assert len(pauses) == 5
