"""A thin typed client of the REST interface."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter

from service.api.schemas import (
    ArtifactSchema,
    CheckReport,
    CostModelDetail,
    CostModelSchema,
    DeviceSchema,
    JobCreate,
    JobSchema,
    LogLine,
    ModelSchema,
    Page,
    RecordsImported,
    SamplesSchema,
    TargetCreate,
    TargetSchema,
    TaskSchema,
    TrialSchema,
)
from tuner.errors import TesseraError

_CHUNK_BYTES = 1024**2
_CONNECT_S = 5.0
# A check imports the model first; everything else answers within milliseconds.
_READ_S = 600.0
# The server sends a ping every 15 s; a stream that is silent for longer is dead.
_STREAM_READ_S = 40.0
# A server that is started again is there within seconds; this many attempts in a row last for over a minute.
_RECONNECTS = 12
# Between two attempts: twice as long each time. A server says for how long it is busy.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 10.0
_BUSY = frozenset({429, 502, 503, 504})

Schema = TypeVar("Schema", bound=BaseModel)


class ServerUnreachable(TesseraError):
    code = "server_unreachable"
    hint = "Start it with: tessera serve, or give another --url (TESSERA_URL)."


class RequestFailed(TesseraError):
    """The server answered with a problem; ``status`` is its HTTP status."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        details = problem.get("details")
        super().__init__(
            str(problem.get("detail") or problem.get("title") or f"The server answered {status}."),
            code=str(problem.get("code", "http_error")),
            hint=str(problem.get("hint", "")),
            details=details if isinstance(details, dict) else None,
        )
        self.status = status


class Client:
    """One server. Raises `ServerUnreachable` and `RequestFailed`.

    Requests that can be sent twice without harm are, up to ``retries`` times, where the connection broke or the server
    is busy.
    """

    def __init__(self, url: str, *, token: str | None = None, retries: int = 0) -> None:
        self.url = url.rstrip("/")
        self._retries = retries
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(
            base_url=f"{self.url}/api/v1",
            headers=headers,
            timeout=httpx2.Timeout(_READ_S, connect=_CONNECT_S),
            trust_env=False,
        )
        weakref.finalize(self, self._http.close)  # for those who never close it

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def upload_model(self, path: Path) -> ModelSchema:
        return ModelSchema.model_validate(self._upload("/models", path))

    def upload_samples(self, path: Path) -> SamplesSchema:
        return SamplesSchema.model_validate(self._upload("/samples", path))

    def check(self, model_id: str, *, target: str, input_shapes: dict[str, list[int]]) -> CheckReport:
        body = {"target": target, "input_shapes": input_shapes}
        return CheckReport.model_validate(self._json("POST", f"/models/{model_id}/check", json=body))

    def create_job(self, request: JobCreate, *, idempotency_key: str | None = None) -> JobSchema:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = request.model_dump(mode="json")
        return JobSchema.model_validate(self._json("POST", "/jobs", json=body, headers=headers))

    def jobs(self, *, limit: int = 50) -> list[JobSchema]:
        return self._page("/jobs", JobSchema, limit=limit)

    def job(self, job_id: str) -> JobSchema:
        return JobSchema.model_validate(self._json("GET", f"/jobs/{job_id}"))

    def cancel(self, job_id: str) -> JobSchema:
        return JobSchema.model_validate(self._json("POST", f"/jobs/{job_id}/cancel"))

    def tasks(self, job_id: str) -> list[TaskSchema]:
        return self._page(f"/jobs/{job_id}/tasks", TaskSchema)

    def trials(self, job_id: str, *, limit: int = 1000) -> list[TrialSchema]:
        return self._page(f"/jobs/{job_id}/trials", TrialSchema, limit=limit)

    def log(self, job_id: str, *, limit: int = 1000) -> list[LogLine]:
        return self._page(f"/jobs/{job_id}/log", LogLine, limit=limit)

    def artifacts(self, job_id: str) -> list[ArtifactSchema]:
        return self._page(f"/jobs/{job_id}/artifacts", ArtifactSchema)

    def targets(self) -> list[TargetSchema]:
        return self._page("/targets", TargetSchema)

    def create_target(self, request: TargetCreate) -> TargetSchema:
        return TargetSchema.model_validate(self._json("POST", "/targets", json=request.model_dump(mode="json")))

    def target(self, name: str) -> TargetSchema:
        return TargetSchema.model_validate(self._json("GET", f"/targets/{name}"))

    def devices(self) -> list[DeviceSchema]:
        return self._page("/devices", DeviceSchema)

    def cost_models(self) -> list[CostModelSchema]:
        return self._page("/cost-models", CostModelSchema)

    def cost_model(self, target: str) -> CostModelDetail:
        return CostModelDetail.model_validate(self._json("GET", f"/cost-models/{target}"))

    def restore_cost_model(self, target: str, version: int) -> CostModelDetail:
        answer = self._json("POST", f"/cost-models/{target}/versions/{version}/restore")
        return CostModelDetail.model_validate(answer)

    def import_records(self, path: Path, *, target: str | None) -> RecordsImported:
        params = {"target": target} if target else {}
        answer = self._json("POST", "/records", content=path.read_bytes(), params=params)
        return RecordsImported.model_validate(answer)

    def export_records(self, *, target: str) -> Iterator[bytes]:
        yield from self._stream("/records", params={"target": target})

    def download(self, artifact: ArtifactSchema, folder: Path) -> Path:
        """Write the artifact into the folder; it appears there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / Path(artifact.filename).name
        partial = place.with_name(f".{place.name}.part")
        try:
            with partial.open("wb") as file:
                for chunk in self._stream(f"/artifacts/{artifact.id}/download"):
                    file.write(chunk)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
        return place

    def events(self, job_id: str, *, after: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
        """``(kind, data)`` of every event as it happens, until the job has ended; a broken stream is resumed."""
        failures = 0
        while True:
            # A server that is stopped ends its streams in good order.
            problem: TesseraError = ServerUnreachable(f"The server at {self.url} closed the stream.")
            try:
                for event_id, kind, data in self._sse(job_id, after):
                    failures = 0
                    after = event_id or after
                    if kind == "end":
                        return
                    yield kind, data
            except httpx2.TransportError as error:
                problem = self._unreachable(error)
            except RequestFailed as error:
                if error.status not in _BUSY:
                    raise
                problem = error
            failures += 1
            if failures > _RECONNECTS:
                raise problem
            time.sleep(min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S))

    def _sse(self, job_id: str, after: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        timeout = httpx2.Timeout(_STREAM_READ_S, connect=_CONNECT_S)
        with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=timeout) as response:
            if response.status_code != 200:
                response.read()
                raise _failed(response)
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                else:
                    if "data" in fields:
                        yield int(fields.get("id", 0)), fields.get("event", "message"), json.loads(fields["data"])
                    fields = {}

    def _upload(self, route: str, path: Path) -> Any:
        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        return self._json("POST", route, params={"filename": path.name}, content=chunks, headers=headers)

    def _page(self, route: str, schema: type[Schema], *, limit: int | None = None) -> list[Schema]:
        page = TypeAdapter(Page[schema])  # type: ignore[valid-type]
        params = {"limit": limit} if limit else {}
        return list(page.validate_python(self._json("GET", route, params=params)).items)

    def _request(self, method: str, route: str, **options: Any) -> httpx2.Response:
        """``content`` may be a function that begins a stream anew for every attempt."""
        content = options.pop("content", None)
        # Uploads are told apart by what is in them.
        repeatable = method == "GET" or callable(content) or "Idempotency-Key" in options.get("headers", {})
        attempts = 1 + (self._retries if repeatable else 0)
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, attempts + 1):
            try:
                sent = content() if callable(content) else content
                response = self._http.request(method, route, content=sent, **options)
            except httpx2.TransportError as error:
                if attempt == attempts:
                    raise self._unreachable(error) from None
            else:
                if response.status_code not in _BUSY or attempt == attempts:
                    return response
                told = response.headers.get("retry-after", "")
                pause_s = float(told) if told.isdecimal() else pause_s
            time.sleep(min(pause_s, _LONGEST_PAUSE_S))
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _json(self, method: str, route: str, **options: Any) -> Any:
        response = self._request(method, route, **options)
        if response.status_code >= 400:
            raise _failed(response)
        try:
            return response.json()
        except ValueError:
            raise RequestFailed({"detail": f"{self.url} answered, but it is no Tessera server."}, 502) from None

    def _stream(self, route: str, **options: Any) -> Iterator[bytes]:
        try:
            with self._http.stream("GET", route, **options) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _failed(response)
                yield from response.iter_bytes(_CHUNK_BYTES)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(f"The server at {self.url} does not answer ({type(error).__name__}).")


def _failed(response: httpx2.Response) -> RequestFailed:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    return RequestFailed(problem if isinstance(problem, dict) else {}, response.status_code)
