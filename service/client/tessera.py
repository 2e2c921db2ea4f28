"""What scripts and notebooks use: a model goes in, a job can be waited for and watched, its bundle is downloaded.

t = Tessera("http://127.0.0.1:8765")
job = t.tune("model.onnx", target="raspberry-pi-4", trials=512)
print(job.wait().speed_up, job.download("."))
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anyio.to_thread import run_sync

from service.access.local_token import token_for
from service.client.async_rest import AsyncClient
from service.client.rest import Client
from service.jobs.states import FINAL_STATES, JobState
from service.schemas.jobs import JobCreate, JobSchema, Measure
from service.schemas.models import ModelSchema
from service.schemas.targets import TargetSchema
from service.settings import Settings
from tuner.errors import TesseraError

DEFAULT_URL = "http://127.0.0.1:8765"
_RETRIES = 5
# What exporting imports: PyTorch, and what PyTorch needs for it without requiring it.
_EXPORTERS = frozenset({"torch", "onnx", "onnxscript", "onnx_ir"})


class JobFailed(TesseraError):
    """The job ended without a bundle; ``code`` and ``hint`` are those of the job's error."""

    code = "job_failed"


class JobCancelled(TesseraError):
    code = "job_cancelled"
    hint = "Its records stay: the next job starts from them."


class ExporterNotInstalled(TesseraError):
    """`Tessera.export_torch` needs PyTorch, and onnxscript beside it since PyTorch 2.9."""

    code = "exporter_not_installed"
    hint = "pip install torch onnxscript"


class Tessera:
    """A server, by its URL (else ``TESSERA_URL``, else this machine's usual one) and token (else ``TESSERA_TOKEN``,
    else the one that the server wrote into this user's data directory).

    Requests that a broken connection or a busy server swallowed are sent again, later and later, five times; a job is
    never made twice. Raises `ServerUnreachable` and `RequestFailed`, both with ``code`` and ``hint``.
    """

    def __init__(self, url: str | None = None, *, token: str | None = None) -> None:
        address = url or os.environ.get("TESSERA_URL") or DEFAULT_URL
        self.client = Client(
            address,
            token=token or os.environ.get("TESSERA_TOKEN") or token_for(address, Settings()),
            retries=_RETRIES,
        )

    def upload(self, path: str | Path) -> ModelSchema:
        """Upload an ONNX file; the same bytes are the same model."""
        return self.client.upload_model(Path(path))

    def tune(
        self,
        model: str | Path | ModelSchema,
        *,
        target: str = "host",
        trials: int | None = None,
        time_limit_s: float | None = None,
        memory_limit_bytes: int | None = None,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        samples: str | Path | None = None,
        measure: str = "device",
        seed: int = 0,
    ) -> Job:
        """Start a job for an uploaded model, or for a file, which is uploaded first. ``samples`` is an ``.npz`` with an
        array for each input."""
        uploaded = model if isinstance(model, ModelSchema) else self.upload(model)
        request = JobCreate(
            model_id=uploaded.id,
            target=target,
            trials=trials,
            time_limit_s=time_limit_s,
            memory_limit_bytes=memory_limit_bytes,
            input_shapes={name: list(shape) for name, shape in (input_shapes or {}).items()},
            samples=self.client.upload_samples(Path(samples)).id if samples is not None else None,
            measure=Measure(measure),
            seed=seed,
        )
        return Job(self.client, self.client.create_job(request, idempotency_key=str(uuid.uuid4())))

    def export_torch(
        self, module: Any, example_inputs: tuple[Any, ...], *, name: str = "model", **options: Any
    ) -> ModelSchema:
        """Export a PyTorch module on this side and upload what comes out: the server never sees the module itself.

        ``options`` are those of ``torch.onnx.export``. Raises `ExporterNotInstalled`.
        """
        with tempfile.TemporaryDirectory(prefix="tessera-export-") as folder:
            path = Path(folder) / f"{name}.onnx"
            try:
                import torch

                torch.onnx.export(module, example_inputs, str(path), **{"external_data": False, **options})
            except ModuleNotFoundError as error:
                if error.name not in _EXPORTERS:
                    raise
                raise ExporterNotInstalled(f"PyTorch cannot export here: {error.name} is not installed.") from error
            return self.upload(path)

    def job(self, job_id: str) -> Job:
        return Job(self.client, self.client.job(job_id))

    def jobs(self, *, limit: int = 50) -> list[Job]:
        """The newest jobs."""
        return [Job(self.client, state) for state in self.client.jobs(limit=limit)]

    def targets(self) -> list[TargetSchema]:
        return self.client.targets()

    def close(self) -> None:
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Tessera({self.client.url!r})"


class Job:
    """A job as it was when it was last asked for: `refresh`, `wait` and `watch` ask again."""

    def __init__(self, client: Client, state: JobSchema) -> None:
        self._client = client
        self.info = state

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def state(self) -> str:
        return self.info.state.value

    @property
    def done(self) -> bool:
        return self.info.state in FINAL_STATES

    @property
    def latency_us(self) -> float | None:
        """Of the best build so far: measured at the end, estimated before."""
        return self.info.best.latency_us if self.info.best else None

    @property
    def speed_up(self) -> float | None:
        """How many times as fast as ONNX Runtime, or as TVM's default build where that was not measured."""
        baseline = self.info.baseline
        reference_us = (baseline.onnxruntime_us or baseline.latency_us) if baseline else None
        return reference_us / self.latency_us if reference_us and self.latency_us else None

    def refresh(self) -> Job:
        self.info = self._client.job(self.id)
        return self

    def watch(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every event ``(kind, data)`` from the job's beginning until it has ended, as it happens."""
        yield from self._client.events(self.id)
        self.refresh()

    def wait(self, *, timeout_s: float | None = None) -> Job:
        """Until the job has ended. Raises `JobFailed`, `JobCancelled`, and `TimeoutError`, which leaves it running."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s = 0.1
        while not self.refresh().done:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"Job {self.id} is still {self.state} after {timeout_s:g} s.")
            time.sleep(pause_s if deadline is None else min(pause_s, max(0.0, deadline - time.monotonic())))
            pause_s = min(2.0, 1.3 * pause_s)
        if self.info.state is JobState.FAILED and (error := self.info.error) is not None:
            raise JobFailed(error.message, code=error.code, hint=error.hint)
        if self.info.state is JobState.CANCELLED:
            raise JobCancelled(f"Job {self.id} was cancelled.")
        return self

    def cancel(self) -> Job:
        self.info = self._client.cancel(self.id)
        return self

    def download(self, folder: str | Path = ".") -> Path:
        """The bundle, into a folder, with its signature beside it. Raises `JobFailed` where there is none (yet)."""
        artifacts = {artifact.kind: artifact for artifact in self._client.artifacts(self.id)}
        if "bundle" not in artifacts:
            raise JobFailed(f"Job {self.id} has no bundle: it is {self.state}.", hint="Wait for it first: job.wait()")
        if "signature" in artifacts:
            self._client.download(artifacts["signature"], Path(folder))
        return self._client.download(artifacts["bundle"], Path(folder))

    def __repr__(self) -> str:
        return f"<Job {self.id}: {self.info.model_name} on {self.info.target}, {', '.join(self._facts())}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        about = (
            f"<b>{escape(self.info.model_name)}</b> on {escape(self.info.target)}: {escape(', '.join(self._facts()))}"
        )
        bar = "" if self.done else f' <progress value="{self.info.progress.fraction}" max="1"></progress>'
        link = f'<a href="{escape(self._client.url)}/jobs/{self.id}">open</a>'
        return f"<div>{about}{bar} {link}</div>"

    def _facts(self) -> list[str]:
        facts = [self.state]
        if not self.done and self.info.stage:
            facts.append(self.info.stage)
        if self.latency_us is not None:
            facts.append(f"{self.latency_us:.1f} µs")
        if self.speed_up is not None and self.info.baseline is not None:
            peer = "ONNX Runtime" if self.info.baseline.onnxruntime_us else "untuned"
            facts.append(f"{self.speed_up:.2f}× as fast as {peer}")
        if self.info.error is not None:
            facts.append(self.info.error.message)
        return facts


class AsyncTessera:
    """`Tessera` for asyncio and trio: its calls wait in threads."""

    def __init__(self, url: str | None = None, *, token: str | None = None) -> None:
        self.sync = Tessera(url, token=token)
        self.client = AsyncClient(self.sync.client)

    async def upload(self, path: str | Path) -> ModelSchema:
        return await run_sync(self.sync.upload, path)

    async def tune(self, model: str | Path | ModelSchema, **options: Any) -> AsyncJob:
        """Options are those of `Tessera.tune`."""
        return AsyncJob(await run_sync(partial(self.sync.tune, model, **options)))

    async def export_torch(self, module: Any, example_inputs: tuple[Any, ...], **options: Any) -> ModelSchema:
        return await run_sync(partial(self.sync.export_torch, module, example_inputs, **options))

    async def job(self, job_id: str) -> AsyncJob:
        return AsyncJob(await run_sync(self.sync.job, job_id))

    async def jobs(self, *, limit: int = 50) -> list[AsyncJob]:
        return [AsyncJob(job) for job in await run_sync(partial(self.sync.jobs, limit=limit))]

    async def targets(self) -> list[TargetSchema]:
        return await run_sync(self.sync.targets)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.sync.close()


class AsyncJob:
    """`Job` for asyncio and trio; ``sync`` is the job itself."""

    def __init__(self, job: Job) -> None:
        self.sync = job

    @property
    def id(self) -> str:
        return self.sync.id

    @property
    def info(self) -> JobSchema:
        return self.sync.info

    @property
    def state(self) -> str:
        return self.sync.state

    async def refresh(self) -> AsyncJob:
        await run_sync(self.sync.refresh)
        return self

    async def wait(self, *, timeout_s: float | None = None) -> AsyncJob:
        """A cancelled wait is left at once; the job itself goes on."""
        await run_sync(partial(self.sync.wait, timeout_s=timeout_s), abandon_on_cancel=True)
        return self

    async def watch(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        events = self.sync.watch()
        while (event := await run_sync(partial(next, events, None), abandon_on_cancel=True)) is not None:
            yield event

    async def cancel(self) -> AsyncJob:
        await run_sync(self.sync.cancel)
        return self

    async def download(self, folder: str | Path = ".") -> Path:
        return await run_sync(self.sync.download, folder)

    def __repr__(self) -> str:
        return repr(self.sync)

    def _repr_html_(self) -> str:
        return self.sync._repr_html_()
