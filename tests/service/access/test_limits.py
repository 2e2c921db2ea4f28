"""How often somebody may ask, and how often somebody may guess."""

from __future__ import annotations

import pytest

from service.access.rate_limits import Buckets, network_of
from service.app import create_app
from service.settings import Settings
from tests.service.access.conftest import HTML, ORIGIN, Tokens, nobody
from tests.signed_in import TestClient


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3, clock=clock)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("a") == pytest.approx(0.5)  # who is refused waits no longer for having asked
    assert buckets.take("b") == 0
    clock.now += 0.5
    assert buckets.wait_s("a") == 0
    assert buckets.wait_s("a") == 0
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    clock.now += 3600
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]
    assert [Buckets(0, 1).take("a") for _ in range(1000)] == [0] * 1000


def test_the_buckets_that_are_kept_are_those_in_use() -> None:
    buckets = Buckets(0.001, 1, clock=Clock())
    assert buckets.take("busy") == 0
    for number in range(30_000):
        buckets.take(number)
        if number % 1000 == 0:
            assert buckets.take("busy") > 0
    assert len(buckets._buckets) <= 10_000


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_what_is_counted_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_token_has_its_share(settings: Settings) -> None:
    few = settings.model_copy(update={"token_requests_per_s": 1.0})
    with TestClient(create_app(few, engine=False)) as client:
        sent = client.post("/api/v1/tokens", json={"name": "ci", "scope": "read"}).json()
        header = {"Authorization": f"Bearer {sent['token']}"}
        statuses = [client.get("/api/v1/jobs", headers=header).status_code for _ in range(8)]
        assert statuses[:5] == [200] * 5
        assert statuses[-1] == 429
        refused = client.get("/api/v1/jobs", headers=header)
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("too_many_requests", "1")
        assert refused.json()["details"] == {"retry_after_s": 1}
        assert client.get("/api/v1/jobs").status_code == 200  # another one has its own


def test_an_address_has_its_share_and_health_is_not_counted(settings: Settings) -> None:
    few = settings.model_copy(update={"address_requests_per_s": 1.0})
    with TestClient(create_app(few, engine=False)) as client, nobody(client) as anybody:
        statuses = [anybody.get("/static/mark.svg").status_code for _ in range(8)]
        assert (statuses[0], statuses[-1]) == (200, 429)
        assert client.get("/api/v1/jobs").json()["code"] == "too_many_requests"
        assert [client.get("/healthz").status_code for _ in range(20)] == [200] * 20


def test_guessing_is_stopped_and_whoever_works_there_goes_on(client: TestClient, token: Tokens) -> None:
    known, unused = token("submit"), token("read")
    for header in (known, {}):  # the latter is the local one
        assert client.get("/api/v1/jobs", headers=header).status_code == 200
    statuses = []
    for number in range(15):
        guess = {"Authorization": f"Bearer tss_{number:043}"}
        statuses.append(client.get("/api/v1/jobs", headers=guess).status_code)
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429
    # A guess that would be right is not told to be: nothing new is looked at, by whatever way it comes.
    right = client.get("/api/v1/jobs", headers=unused)
    assert (right.status_code, right.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(right.headers["retry-after"]) <= 6
    with nobody(client) as browser:
        secret = unused["Authorization"].removeprefix("Bearer ")
        page = browser.post("/sign-in", data={"token": secret}, headers={**HTML, **ORIGIN})
        assert page.status_code == 429
        assert "Too many failed sign-ins from your address." in page.text
        assert "retry-after" in page.headers
        assert browser.get("/sign-in?code=tsl_x", headers=HTML).status_code == 429
        browser.cookies.set("tessera_80", "tsn_" + "A" * 43)
        assert browser.get("/api/v1/jobs").status_code == 429
    # What was good before is not locked out, and who shows nothing guesses nothing.
    assert client.get("/api/v1/jobs", headers=known).status_code == 200
    assert client.get("/api/v1/jobs").status_code == 200
    with nobody(client) as anybody:
        assert anybody.get("/api/v1/jobs").status_code == 401


def test_signing_in_is_limited_by_itself(client: TestClient) -> None:
    with nobody(client) as browser:
        statuses = [
            browser.post("/sign-in", data={"token": f"tss_{number:043}"}, headers=ORIGIN).status_code
            for number in range(12)
        ]
        codes = [browser.get(f"/sign-in?code=tsl_{number:043}").status_code for number in range(3)]
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429
    assert codes == [429] * 3
