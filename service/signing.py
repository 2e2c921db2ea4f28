"""Signatures of bundles: Ed25519, by a key of this installation that is made when it is first needed.

A signature lies beside its bundle, in a file of JSON: the public key, and what the key signed, which is the SHA-256 of
the archive behind a line that says what it is. That a signature is right says who made the bundle only to those who
know the key from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.ownership import make_data_dir
from service.settings import Settings
from tuner.errors import TesseraError

SUFFIX = ".sig"
_PURPOSE = b"tessera bundle, format 1\n"
_OTHER_KEY = "Give an Ed25519 key as PEM, unencrypted; without TESSERA_SIGNING_KEY and signing.key a new one is made."


class SignatureError(TesseraError):
    """A bundle is not what was signed, or was signed by somebody else."""

    code = "signature_invalid"
    hint = "Download the bundle and its .sig again. If that does not help, do not use it: it is not what was built."


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A public key: 32 bytes in Base64, and the start of their SHA-256 for people to compare."""

    text: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(base64.b64decode(self.text)).hexdigest()[:16]


def public_key(settings: Settings) -> PublicKey:
    """This installation's; makes its key where there is none yet."""
    return _public(_private_key(settings))


def known_key(settings: Settings) -> PublicKey | None:
    """The same, None where there is no key yet."""
    return public_key(settings) if settings.signing_key or settings.signing_key_path.exists() else None


def private_key_pem(settings: Settings) -> str:
    """This installation's private key, for the processes of its jobs on other machines."""
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return _private_key(settings).private_bytes(serialization.Encoding.PEM, *private).decode()


def sign(settings: Settings, bundle: Path) -> bytes:
    """The content of the bundle's ``.sig``."""
    key = _private_key(settings)
    signature = key.sign(_PURPOSE + _digest(bundle))
    signed = {
        "algorithm": "ed25519",
        "public_key": _public(key).text,
        "signature": base64.b64encode(signature).decode(),
    }
    return json.dumps(signed, indent=2).encode() + b"\n"


def check_signature(bundle: Path, signature: bytes, *, trusted: PublicKey | None = None) -> PublicKey:
    """Whose signature it is. Raises `SignatureError` for one that is wrong, or not by the ``trusted`` key."""
    try:
        signed = json.loads(signature)
        key = PublicKey(text=str(signed["public_key"]))
        parsed = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.text, validate=True))
        proof = base64.b64decode(str(signed["signature"]), validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(f"The signature of {bundle.name} cannot be read: {error}") from error
    if trusted is not None and key.text != trusted.text:
        raise SignatureError(
            f"{bundle.name} was signed by key {key.fingerprint}, not by {trusted.fingerprint}.",
            hint="Ask whoever gave you the bundle for their key.",
        )
    try:
        parsed.verify(proof, _PURPOSE + _digest(bundle))
    except InvalidSignature:
        raise SignatureError(f"{bundle.name} is not what key {key.fingerprint} signed.") from None
    return key


def parse_key(text: str) -> PublicKey:
    """A public key as `PublicKey.text` gives it; raises `SignatureError` for anything else."""
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise SignatureError(
            f"{text!r} is no public key.", hint="Give the text that `tessera doctor` shows as the signing key."
        ) from error
    return PublicKey(text=text)


def _private_key(settings: Settings) -> Ed25519PrivateKey:
    if settings.signing_key is not None:
        return _parse_private(settings.signing_key.get_secret_value().encode(), "TESSERA_SIGNING_KEY")
    path = settings.signing_key_path
    if not path.exists():
        make_data_dir(settings)
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(made)
        try:
            os.link(unfinished, path)  # fails where another process was faster: its key it is
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
    return _parse_private(path.read_bytes(), str(path))


def _parse_private(pem: bytes, where: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise SignatureError(f"{where} holds no private key: {error}", hint=_OTHER_KEY) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{where} holds a key of another kind.", hint=_OTHER_KEY)
    return key


def _public(key: Ed25519PrivateKey) -> PublicKey:
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PublicKey(text=base64.b64encode(raw).decode())


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
