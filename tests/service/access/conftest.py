"""Tokens of every scope, and a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest

from service.access.scopes import AccessScope
from service.access.tokens import create_token
from service.ids import new_id
from service.schemas.access import TokenCreate
from service.services import ProjectServices
from tests.service.conftest import services_of
from tests.signed_in import TestClient

Tokens = Callable[..., dict[str, str]]
HTML = {"accept": "text/html,application/xhtml+xml"}
ORIGIN = {"origin": "http://localhost"}


@pytest.fixture
def token(services: ProjectServices) -> Tokens:
    """The header of a new token."""

    def make(scope: str = "admin", *, name: str | None = None, expires_in_s: float | None = None) -> dict[str, str]:
        wanted = TokenCreate(name=name or scope, scope=AccessScope(scope), expires_in_s=expires_in_s)
        return {"Authorization": f"Bearer {create_token(services.database, wanted).token}"}

    return make


def header_of(client: TestClient, project: str, scope: AccessScope = AccessScope.ADMIN) -> dict[str, str]:
    """The header of a new token of a project."""
    wanted = TokenCreate(name=f"{project} {scope.value} {new_id()[-8:]}", scope=scope, project=project)
    return {"Authorization": f"Bearer {create_token(services_of(client).database, wanted).token}"}


@contextmanager
def nobody(client: TestClient) -> Iterator[TestClient]:
    """The same application, asked by somebody who has no token, and no cookies."""
    anonymous = TestClient(client.app, follow_redirects=False)
    anonymous.portal = client.portal  # one event loop, as in a server
    yield anonymous


def sign_in(browser: TestClient, header: dict[str, str], **form: str) -> httpx2.Response:
    """As the form of the page does it."""
    secret = header["Authorization"].removeprefix("Bearer ")
    return browser.post("/sign-in", data={"token": secret, **form}, headers={**HTML, **ORIGIN})


def cookie_of(response: httpx2.Response) -> str:
    """The session's id in an answer that sets it."""
    found = re.search(r"tessera_\d*=(tsn_[A-Za-z0-9_-]+);", response.headers["set-cookie"])
    assert found is not None, response.headers["set-cookie"]
    return found[1]
