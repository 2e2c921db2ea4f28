"""Under which names a server is asked."""

from __future__ import annotations

import pytest

from service.access.hosts import AllowedHosts
from service.app import create_app
from service.settings import Settings
from tests.signed_in import TestClient


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:8765", True),
        ("LOCALHOST:8765", True),
        ("127.0.0.1:8765", True),
        ("[::1]:8765", True),
        ("192.0.2.7", True),
        ("tessera.example.com", True),
        ("Tessera.Example.com.:443", True),
        ("a.b.example.org", True),
        ("gpu-box", True),
        ("example.org", False),
        ("evil-example.org", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("tessera.example.com@evil.example", False),
        ("evil.example:8765", False),
        ("evil.example/localhost", False),
        ("[::1", False),
        ("localhost/static/x?", False),
        ("localhost#", False),
        ("me@localhost", False),
        ("localhost\n", False),
        ("", False),
    ],
)
def test_only_names_of_ours_and_numbers(host: str, allowed: bool) -> None:
    settings = Settings(host="gpu-box", allowed_hosts="tessera.example.com, *.example.org")
    assert AllowedHosts(settings).allow(host) is allowed


def test_a_page_that_rebinds_its_name_is_answered_nothing(settings: Settings) -> None:
    """DNS rebinding: the browser thinks that the attacker's page and this server are one origin."""
    named = settings.model_copy(update={"allowed_hosts": "tessera.example.com"})
    with TestClient(create_app(named, engine=False)) as client:
        for path in ("/", "/healthz", "/api/v1/jobs", "/static/mark.svg", "/sign-in"):
            refused = client.get(path, headers={"host": "evil.example:8765"})
            assert (refused.status_code, refused.json()["code"]) == (421, "unknown_host"), path
            assert refused.headers["x-content-type-options"] == "nosniff"
        assert client.get("/api/v1/jobs", headers={"host": "tessera.example.com"}).status_code == 200
