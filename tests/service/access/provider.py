"""A small OpenID Connect provider over HTTP, which can be wrong in every way that matters."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from tests.serving import serving

CLIENT_ID, CLIENT_SECRET = "tessera", "a secret: 100% + more"


@dataclass
class Provider:
    """``user`` signs in as soon as a browser comes. ``change`` alters the claims of the ID token; ``sign`` replaces its
    signature; ``methods`` are how a client may say its secret."""

    issuer: str = ""
    user: dict[str, Any] = field(default_factory=lambda: {"sub": "1", "email": "ada@example.com", "groups": ["ml"]})
    methods: tuple[str, ...] = ("client_secret_basic",)
    change: Callable[[dict[str, Any]], object] = lambda claims: None
    sign: Callable[[dict[str, Any]], str] | None = None
    only_in_userinfo: tuple[str, ...] = ()
    userinfo: dict[str, Any] = field(default_factory=dict)
    described: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", auto_kid=True))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def description(self) -> dict[str, Any]:
        places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {
            "issuer": self.issuer,
            **{name: f"{self.issuer}/{place}" for name, place in places.items()},
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "scopes_supported": ["openid", "email", "groups"],
            "token_endpoint_auth_methods_supported": list(self.methods),
            **self.described,
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT_ID)
        assert query["code_challenge_method"] == "S256"
        assert query["scope"] == "openid email groups"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        if authorization.startswith("Basic "):
            said = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            client, secret = map(unquote, said.split(":", 1))
            allowed = "client_secret_basic" in self.methods
        else:
            client, secret = form.get("client_id", ""), form.get("client_secret", "")
            allowed = ("client_secret_post" if secret else "none") in self.methods
        if not allowed or client != CLIENT_ID or (secret or CLIENT_SECRET) != CLIENT_SECRET:
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or form["redirect_uri"] != asked["redirect_uri"] or challenge != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}

    def id_token(self, nonce: str) -> str:
        moment = int(time.time())
        told = {name: value for name, value in self.user.items() if name not in self.only_in_userinfo}
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "nonce": nonce, "iat": moment, "exp": moment + 300, **told}
        self.change(claims)
        return self.sign(claims) if self.sign else self.signed(claims, self.key)

    def signed(self, claims: dict[str, Any], key: ECKey) -> str:
        return jwt.encode({"alg": "ES256", "kid": str(self.key.kid)}, claims, key)

    def keys(self) -> dict[str, Any]:
        return dict(KeySet([self.key]).as_dict(private=False))

    # Forgeries.

    def by_another_key(self, claims: dict[str, Any]) -> str:
        return self.signed(claims, ECKey.generate_key("P-256"))

    def by_the_clients_secret(self, claims: dict[str, Any]) -> str:
        header = {"alg": "HS256", "kid": str(self.key.kid)}
        return jwt.encode(header, claims, OctKey.import_key(CLIENT_SECRET), algorithms=["HS256"])

    def by_nobody(self, claims: dict[str, Any]) -> str:
        parts = [json.dumps(each).encode() for each in ({"alg": "none", "kid": str(self.key.kid)}, claims)]
        return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


@contextmanager
def providing() -> Iterator[Provider]:
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            provider.asked.append(address.path)
            match address.path:
                case "/.well-known/openid-configuration":
                    self.answer(200, provider.description())
                case "/authorize":
                    query = {name: values[0] for name, values in parse_qs(address.query).items()}
                    self.send_response(303)
                    self.send_header("Location", provider.authorize(query))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                case "/keys":
                    self.answer(200, provider.keys())
                case "/userinfo":
                    assert self.headers["Authorization"] == "Bearer opaque"
                    self.answer(200, {**provider.user, **provider.userinfo})
                case _:
                    self.answer(404, {})

        def do_POST(self) -> None:
            provider.asked.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self.answer(*provider.token(form, self.headers.get("Authorization", "")))

        def answer(self, status: int, told: dict[str, Any]) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    with serving(server):
        yield provider
