"""How the client speaks to a server: requests that are sent again, uploads, downloads, streams that are resumed."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter

from service.schemas.pages import Page
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


class Transport:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _page(self, route: str, schema: type[Schema], *, limit: int | None = None) -> list[Schema]:
        page = TypeAdapter(Page[schema])  # type: ignore[valid-type]
        params = {"limit": limit} if limit else {}
        return list(page.validate_python(self._json("GET", route, params=params)).items)

    def _upload(self, route: str, path: Path) -> Any:
        def chunks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        return self._json("POST", route, params={"filename": path.name}, content=chunks, headers=headers)

    def _save(self, route: str, place: Path) -> Path:
        """Write what is downloaded; it appears there whole or not at all."""
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.part")
        try:
            with partial.open("wb") as file:
                for chunk in self._stream(route):
                    file.write(chunk)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
        return place

    def _events(self, route: str, *, after: int) -> Iterator[tuple[str, dict[str, Any]]]:
        failures = 0
        while True:
            # A server that is stopped ends its streams in good order.
            problem: TesseraError = ServerUnreachable(f"The server at {self.url} closed the stream.")
            try:
                for event_id, kind, data in self._sse(route, after):
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

    def _sse(self, route: str, after: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        timeout = httpx2.Timeout(_STREAM_READ_S, connect=_CONNECT_S)
        with self._http.stream("GET", route, headers=headers, timeout=timeout) as response:
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

    def _checked(self, method: str, route: str, **options: Any) -> httpx2.Response:
        response = self._request(method, route, **options)
        if response.status_code >= 400:
            raise _failed(response)
        return response

    def _json(self, method: str, route: str, **options: Any) -> Any:
        response = self._checked(method, route, **options)
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
