"""What a webhook reaches: the internet and what the settings name, by the address that was looked at, no further."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from service.settings import Settings
from service.webhooks.addresses import AddressRefused, Reach
from service.webhooks.post import post
from service.webhooks.sender import WebhookSender
from tests.service.conftest import services_of
from tests.serving import serving
from tests.signed_in import TestClient

INTERNET = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"]
LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"]
INSIDE = [
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.5",
    "100.64.0.1",  # shared by customers of a provider
    "169.254.169.254",  # what clouds tell their machines
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "::",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",  # 10.0.0.1 behind a gateway
    "64:ff9b::a9fe:a9fe",
    "2002:a00:1::1",
    "255.255.255.255",
]


def reach(**settings: Any) -> Reach:
    return Reach(Settings(**settings))


def test_the_internet_is_reached_and_what_is_beside_the_server_is_not() -> None:
    found = reach(host="0.0.0.0")
    assert [address for address in INTERNET if not found.allows(address)] == []
    assert [address for address in LOOPBACK + INSIDE if found.allows(address)] == []


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost"}, True),
        ({"host": "192.168.1.2"}, False),
        ({"allowed_hosts": "tessera.example.com"}, False),
        ({"trusted_proxies": "127.0.0.1"}, False),
        ({"authentication": "proxy"}, False),
        ({"webhook_networks": ""}, False),
    ],
)
def test_this_machine_is_reached_where_only_it_reaches_the_server(settings: dict[str, Any], allowed: bool) -> None:
    found = reach(**settings)
    assert [found.allows(address) for address in LOOPBACK] == [allowed] * len(LOOPBACK)
    assert [address for address in INSIDE if found.allows(address)] == []


def test_networks_that_are_named_are_reached() -> None:
    found = reach(webhook_networks="192.168.1.0/24, fd00::7")
    assert [found.allows(address) for address in ("192.168.1.5", "::ffff:192.168.1.5", "fd00::7")] == [True] * 3
    assert [found.allows(address) for address in ("192.168.2.5", "fd00::8", "127.0.0.1")] == [False] * 3
    with pytest.raises(ValidationError):
        reach(webhook_networks="192.168.1.0/33")


Known = dict[str, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> tuple[Known, list[str]]:
    """Names of hosts with their addresses, for tests to fill, and what was asked for."""
    known: Known = {}
    asked: list[str] = []
    real: Callable[..., list[Any]] = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name not in known:
            return real(host, port, *rest, **options)
        asked.append(name)
        return [entry for address in known[name] for entry in real(address, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known, asked


def test_a_name_is_what_it_stands_for(names: tuple[Known, list[str]]) -> None:
    names[0].update({"inside.test": ["10.0.0.1", "127.0.0.1"], "both.test": ["10.0.0.1", "1.1.1.1"]})
    found = reach(host="0.0.0.0")
    with pytest.raises(AddressRefused, match=r"inside\.test is 10\.0\.0\.1, 127\.0\.0\.1"):
        found.addresses_of("inside.test", 80)
    assert found.addresses_of("both.test", 80) == ["1.1.1.1"]
    for disguised in ("2130706433", "0x7f.1", "0177.0.0.1", "127.1"):
        with pytest.raises((AddressRefused, OSError)):
            found.addresses_of(disguised, 80)


@contextmanager
def listening(answer: bytes, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """A server that answers so, its port, and the path and name of each request."""
    got: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.headers["Host"]))
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # handshakes that the other side gives up

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server.server_port, got


def tell(url: str, *, tls: ssl.SSLContext | None = None, within_s: float = 10.0, **settings: Any) -> int:
    context = tls or ssl.create_default_context()
    return post(url, b"{}", {}, reach=reach(**settings), tls=context, within_s=within_s)


def test_a_name_is_looked_up_once_and_that_address_is_told(names: tuple[Known, list[str]]) -> None:
    known, asked = names
    known["hook.test"] = ["127.0.0.1"]
    with listening(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, got):
        assert tell(f"http://hook.test:{port}/told?a=b") == 204
        assert got == [("/told?a=b", f"hook.test:{port}")]
        assert asked == ["hook.test"]
        with pytest.raises(AddressRefused):
            tell(f"http://hook.test:{port}/told", host="0.0.0.0")
        with pytest.raises(AddressRefused):
            tell(f"http://127.0.0.1:{port}/told", host="0.0.0.0")
    assert len(got) == 1


def test_the_next_address_is_tried_where_nobody_listens(names: tuple[Known, list[str]]) -> None:
    names[0]["hook.test"] = ["127.0.0.2", "127.0.0.1"]
    with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, got):
        assert tell(f"http://hook.test:{port}/") == 200
        assert len(got) == 1
    with pytest.raises(httpx2.ConnectError):
        tell(f"http://hook.test:{port}/")


def test_a_redirect_leads_nowhere() -> None:
    with listening(b"HTTP/1.1 204 No Content\r\n\r\n") as (inside, got):
        away = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{inside}/\r\nContent-Length: 0\r\n\r\n"
        with listening(away.encode()) as (port, _):
            assert tell(f"http://127.0.0.1:{port}/") == 307
        assert got == []


def test_an_answer_that_never_ends_is_not_waited_for() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + bytes(1000)
    with listening(endless) as (port, _):
        assert tell(f"http://127.0.0.1:{port}/") == 200
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not done.wait(0.05):
                    try:
                        connection.sendall(b"X: y\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        with pytest.raises(TimeoutError):
            tell(f"http://127.0.0.1:{server.getsockname()[1]}/", within_s=0.5)
        done.set()
        thread.join()


def certificate(folder: Path, name: str) -> Path:
    """A file with a certificate of that name, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(name)]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{name}.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_certificate_has_to_be_the_names(names: tuple[Known, list[str]], tmp_path: Path) -> None:
    names[0].update({"hook.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]})
    file = certificate(tmp_path, "hook.test")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT  # wants more of an authority than this one has
    with listening(b"HTTP/1.1 204 No Content\r\n\r\n", served) as (port, got):
        assert tell(f"https://hook.test:{port}/", tls=trusting) == 204
        assert got == [("/", f"hook.test:{port}")]
        for wrong in ("other.test", "127.0.0.1"):
            with pytest.raises(httpx2.ConnectError, match="certificate"):
                tell(f"https://{wrong}:{port}/", tls=trusting)
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            tell(f"https://hook.test:{port}/")
    assert len(got) == 1


def test_an_address_that_is_refused_is_said_when_it_is_added(client: TestClient) -> None:
    for url in ("http://10.0.0.1/hook", "https://169.254.169.254/latest", "http://[fd00::1]:8000/"):
        answer = client.post("/api/v1/webhooks", json={"url": url})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook")
        assert "TESSERA_WEBHOOK_NETWORKS" in answer.json()["hint"]
        page = client.post("/settings/webhooks", data={"url": url})
        assert page.status_code == 422
        assert "TESSERA_WEBHOOK_NETWORKS" in page.text
    assert client.get("/api/v1/webhooks").json()["items"] == []
    assert client.post("/api/v1/webhooks", json={"url": "http://127.0.0.1:9/hook"}).status_code == 201


def test_a_refused_address_is_told_with_the_message(client: TestClient, names: tuple[Known, list[str]]) -> None:
    names[0]["inside.test"] = ["10.0.0.1"]
    webhook = client.post("/api/v1/webhooks", json={"url": "http://inside.test/hook"}).json()
    client.post(f"/api/v1/webhooks/{webhook['id']}/test")
    services = services_of(client)
    assert WebhookSender(services.database.whole, Reach(services.settings)).send_due() == 1
    (told,) = client.get(f"/api/v1/webhooks/{webhook['id']}/deliveries").json()["items"]
    assert (told["state"], told["attempts"]) == ("pending", 1)
    assert told["error"] == "inside.test is 10.0.0.1: in no network of TESSERA_WEBHOOK_NETWORKS"
