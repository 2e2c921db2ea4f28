"""Requests of tests carry a token, as everybody's do: the one that a server writes into its data directory."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import starlette.testclient
from starlette.types import ASGIApp

from service.access.local_token import read_local_token
from service.settings import Settings

_TOKENS: dict[str, str] = {}


class TestClient(starlette.testclient.TestClient):
    """Starlette's, with the local token from when the application has started."""

    __test__ = False

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(app, **{"base_url": "http://localhost", **options})

    def __enter__(self) -> Self:
        super().__enter__()
        settings = self.app.state.services.settings  # type: ignore[attr-defined]
        self.headers["Authorization"] = f"Bearer {local_token(settings)}"
        return self


class _Auth(httpx2.Auth):
    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {token_of(str(request.url))}"
        yield request


# For httpx2: the token of whatever server is asked.
AUTH = _Auth()


def local_token(settings: Settings) -> str:
    token = read_local_token(settings)
    assert token is not None, "the server has not started"
    return token


def remember(url: str, settings: Settings) -> None:
    """From now on requests to that server carry its token. To be called when it has started."""
    _TOKENS[urlsplit(url).netloc] = local_token(settings)


def also_at(other_url: str, url: str) -> None:
    """A proxy in front of a server."""
    _TOKENS[urlsplit(other_url).netloc] = token_of(url)


def token_of(url: str) -> str:
    return _TOKENS[urlsplit(url).netloc]


def get(url: str, **options: Any) -> httpx2.Response:
    return httpx2.get(url, auth=AUTH, **options)


def post(url: str, **options: Any) -> httpx2.Response:
    return httpx2.post(url, auth=AUTH, **options)


def delete(url: str, **options: Any) -> httpx2.Response:
    return httpx2.delete(url, auth=AUTH, **options)
