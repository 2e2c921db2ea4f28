"""Tokens: what is stored of them, when they end, and who is told."""

from __future__ import annotations

import hmac
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.access import authenticator
from service.access.authenticator import Authenticator
from service.access.keeping import keep_tokens
from service.access.local_token import read_local_token, token_for, write_local_token
from service.access.principal import Credential, Principal, sha256_of
from service.access.scopes import AccessScope
from service.access.tokens import WeakToken, create_token, keep_bootstrap, list_tokens, new_secret, revoke_token
from service.database import Database
from service.database.base import now
from service.database.tables import AccessToken
from service.errors import Conflict, NotFound
from service.ownership import announce, own
from service.schemas.access import TokenCreate
from service.services import ProjectServices
from service.settings import Settings
from tests.service.access.conftest import Tokens
from tests.service.conftest import start, until
from tests.signed_in import TestClient

STRONG = "tss_" + "0123456789abcdef" * 4


def made(database: Database, name: str = "ci", **fields: object) -> str:
    wanted = TokenCreate.model_validate({"name": name, "scope": "read", **fields})
    return create_token(database, wanted).token


def test_a_token_has_256_bits_and_only_its_hash_is_stored(database: Database) -> None:
    secret = made(database)
    assert re.fullmatch(r"tss_[A-Za-z0-9_-]{43}", secret)
    assert len({new_secret() for _ in range(100)}) == 100
    with database.read() as session:
        row = session.scalars(select(AccessToken)).one()
        stored = [str(getattr(row, column.key)) for column in AccessToken.__table__.columns]
    assert row.secret_sha256 == sha256_of(secret)
    assert not any(secret in value or secret[4:] in value for value in stored)


def test_a_name_is_taken_until_its_token_ends(database: Database) -> None:
    made(database)
    with pytest.raises(Conflict, match="'ci' already"):
        made(database)
    revoke_token(database, "ci")
    made(database)
    assert [(each.name, each.revoked_at is None) for each in list_tokens(database)] == [("ci", False), ("ci", True)]
    with pytest.raises(NotFound):
        revoke_token(database, "nobody")


def test_it_is_looked_up_by_its_hash_and_compared_in_constant_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long the search for a row takes depends on a SHA-256, of which whoever guesses knows nothing."""
    secret = made(database)
    compared: list[tuple[str, str]] = []
    constant = hmac.compare_digest

    def watched(one: str, other: str) -> bool:
        compared.append((one, other))
        return constant(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    found = Authenticator(database).look_up(Credential.of("token", secret))
    assert found is not None
    assert compared == [(sha256_of(secret), sha256_of(secret))]
    for wrong in (secret[:-1], secret.swapcase(), f"{secret} ", ""):
        assert Authenticator(database).look_up(Credential.of("token", wrong)) is None
    assert Authenticator(database).look_up(Credential.of("session", secret)) is None


def test_it_ends_when_it_expires(client: TestClient, services: ProjectServices, token: Tokens) -> None:
    header = token("read", expires_in_s=3600)
    assert client.get("/api/v1/jobs", headers=header).status_code == 200
    (known,) = [each for each in list_tokens(services.database) if each.name == "read"]
    assert known.expires_at is not None
    assert timedelta(minutes=59) < known.expires_at - now() <= timedelta(hours=1)
    with services.database.write() as session:
        past = now() - timedelta(seconds=1)
        session.execute(update(AccessToken).where(AccessToken.name == "read").values(expires_at=past))
    client.app.state.access.authenticator.forget()  # type: ignore[attr-defined]
    refused = client.get("/api/v1/jobs", headers=header)
    assert (refused.status_code, refused.json()["code"]) == (401, "not_signed_in")


def test_one_that_is_known_ends_on_time_too(client: TestClient, token: Tokens) -> None:
    """What was looked up stays good for a second at most, and never beyond its end."""
    header = token("read", expires_in_s=0.4)
    assert client.get("/api/v1/jobs", headers=header).status_code == 200
    until(lambda: client.get("/api/v1/jobs", headers=header).status_code == 401, within_s=5)


def test_its_use_is_noted_once_a_minute(client: TestClient, services: ProjectServices, token: Tokens) -> None:
    header = token("read")

    def used() -> object:
        client.app.state.access.authenticator.forget()  # type: ignore[attr-defined]
        client.get("/api/v1/jobs", headers=header)
        return next(each.last_used_at for each in list_tokens(services.database) if each.name == "read")

    first = used()
    assert first is not None
    assert used() == first
    with services.database.write() as session:
        earlier = now() - timedelta(seconds=61)
        session.execute(update(AccessToken).where(AccessToken.name == "read").values(last_used_at=earlier))
    assert used() not in (first, earlier)


@contextmanager
def following(client: TestClient, job_id: str, header: dict[str, str]) -> Iterator[threading.Event]:
    """A stream in a thread of its own; the event is set when the server has ended it."""
    begun, ended = threading.Event(), threading.Event()

    def follow() -> None:
        with client.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=header) as stream:
            assert stream.status_code == 200
            begun.set()
            stream.read()
        ended.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    # Starlette's test client hands over whole answers: that the stream is open shows by its look at the job.
    feed = client.app.state.feed  # type: ignore[attr-defined]
    until(lambda: begun.is_set() or any(key[0] == job_id for key in list(feed._looks)))
    yield ended
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("how", ["over REST", "by a command", "by its end"])
def test_an_open_stream_ends_with_its_token(
    client: TestClient, services: ProjectServices, token: Tokens, model_file: Path, how: str
) -> None:
    job_id = start(client, model_file)  # it waits for ever: there is no engine
    header = token("read", expires_in_s=1.5 if how == "by its end" else None)
    with following(client, job_id, header) as ended:
        assert not ended.wait(0.5)
        if how == "over REST":
            assert client.delete("/api/v1/tokens/read").status_code == 204
        elif how == "by a command":  # another process: this one notices within a second
            revoke_token(services.database, "read")
        assert ended.wait(5)
    refused = client.get(f"/api/v1/jobs/{job_id}/events", headers=header)
    assert (refused.status_code, refused.json()["code"]) == (401, "not_signed_in")


def test_the_database_is_asked_once_a_second(
    client: TestClient, token: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = client.app.state.access.authenticator  # type: ignore[attr-defined]
    asked: list[Credential] = []
    look_up: Callable[[Credential], Principal | None] = access.look_up

    def watched(credential: Credential) -> Principal | None:
        asked.append(credential)
        return look_up(credential)

    monkeypatch.setattr(access, "look_up", watched)
    header = token("read")
    begun = time.monotonic()
    for _ in range(20):
        assert client.get("/api/v1/jobs", headers=header).status_code == 200
    assert len(asked) <= 1 + (time.monotonic() - begun) / authenticator.FRESH_S


def test_over_rest(client: TestClient, token: Tokens) -> None:
    sent = client.post("/api/v1/tokens", json={"name": " ci ", "scope": "submit", "expires_in_s": 60})
    assert sent.status_code == 201
    made = sent.json()
    assert (made["name"], made["kind"], made["scope"]) == ("ci", "made", "submit")
    header = {"Authorization": f"Bearer {made['token']}"}
    assert client.get("/api/v1/jobs", headers=header).status_code == 200
    listed = client.get("/api/v1/tokens")
    assert [each["name"] for each in listed.json()["items"]] == ["local", "ci"]
    assert made["token"] not in listed.text
    again = client.post("/api/v1/tokens", json={"name": "ci", "scope": "read"})
    assert (again.status_code, again.json()["code"]) == (409, "token_exists")
    for wrong in ({"scope": "owner"}, {"name": " "}, {"expires_in_s": 0}, {"secret": "x"}):
        refused = client.post("/api/v1/tokens", json={"name": "x", "scope": "read", **wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), wrong
    assert client.delete(f"/api/v1/tokens/{made['id']}").status_code == 204
    assert client.get("/api/v1/jobs", headers=header).status_code == 401
    gone = client.delete(f"/api/v1/tokens/{made['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "token_not_found")


def test_the_local_token_lies_in_the_data_directory_for_its_owner_alone(settings: Settings, database: Database) -> None:
    with own(settings):
        first = keep_tokens(settings, database)
        assert settings.token_path.stat().st_mode & 0o777 == 0o600
        assert settings.data_dir.stat().st_mode & 0o777 == 0o700
        secret = read_local_token(settings)
        assert keep_tokens(settings, database) == first
        assert read_local_token(settings) == secret
        # Others could have read it: it is exchanged.
        settings.token_path.chmod(0o644)
        assert read_local_token(settings) is None
        second = keep_tokens(settings, database)
        assert second != first
        assert read_local_token(settings) not in (secret, None)
        revoke_token(database, second)
        assert keep_tokens(settings, database) not in (first, second)
    look_up = Authenticator(database).look_up
    assert secret is not None
    if database.is_sqlite:
        assert look_up(Credential.of("token", secret)) is None
    current = read_local_token(settings)
    assert current is not None
    principal = look_up(Credential.of("token", current))
    assert principal is not None
    assert (principal.name, principal.scope) == ("local", AccessScope.ADMIN)


def test_a_link_in_its_place_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    settings.data_dir.mkdir(mode=0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    settings.token_path.symlink_to(elsewhere)
    write_local_token(settings, new_secret())
    assert not settings.token_path.is_symlink()
    assert elsewhere.read_text() == "kept"


def test_only_the_server_that_owns_the_data_is_shown_the_local_token(settings: Settings, database: Database) -> None:
    url = "http://127.0.0.1:8765"
    with own(settings):
        keep_tokens(settings, database)
        announce(settings, url)
        assert token_for(f"{url}/", settings) == read_local_token(settings)
        for other in ("http://127.0.0.1:8766", "http://localhost:8765", "http://127.0.0.1:8765@evil.example", ""):
            assert token_for(other, settings) is None
    announce(settings, url)  # a server that was killed: its port may be somebody else's now
    assert token_for(url, settings) is None


def test_the_token_of_the_environment_is_the_only_one_of_its_kind(database: Database) -> None:
    def live() -> list[str]:
        return [each.name for each in list_tokens(database) if each.revoked_at is None]

    keep_bootstrap(database, STRONG)
    keep_bootstrap(database, STRONG)
    assert live() == ["bootstrap"]
    look_up = Authenticator(database).look_up
    assert look_up(Credential.of("token", STRONG)) is not None
    other = STRONG[::-1].removesuffix("_sst") + "0000"
    keep_bootstrap(database, f"tss_{other}")
    assert live() == ["bootstrap"]
    assert look_up(Credential.of("token", STRONG)) is None
    with pytest.raises(WeakToken, match="revoked"):
        keep_bootstrap(database, STRONG)
    keep_bootstrap(database, None)
    assert live() == []
