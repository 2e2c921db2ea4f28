"""Signatures: of this very archive, by this very key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from service.settings import Settings
from service.signing import SignatureError, check_signature, known_key, parse_key, public_key, sign
from tests.service.conftest import Served, ended, start


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "model-host.tar.gz"
    path.write_bytes(bytes(range(256)) * 4)
    return path


def test_the_key_is_made_once_and_for_its_owner_only(settings: Settings, bundle: Path) -> None:
    assert known_key(settings) is None
    key = public_key(settings)
    assert known_key(settings) == key == parse_key(key.text)
    assert stat.S_IMODE(settings.signing_key_path.stat().st_mode) == 0o600
    assert [path.name for path in settings.data_dir.iterdir()] == [settings.signing_key_path.name]
    assert check_signature(bundle, sign(settings, bundle), trusted=key) == key


@example_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(place=st.integers(0, 1023), change=st.integers(1, 255))
def test_any_changed_byte_is_noticed(settings: Settings, bundle: Path, place: int, change: int) -> None:
    signature = sign(settings, bundle)
    changed = bytearray(bundle.read_bytes())
    changed[place] ^= change
    other = bundle.with_name("changed.tar.gz")
    other.write_bytes(bytes(changed))
    with pytest.raises(SignatureError, match="is not what key"):
        check_signature(other, signature)


def test_another_installations_signature_is_not_ours(settings: Settings, bundle: Path, tmp_path: Path) -> None:
    theirs = Settings(data_dir=tmp_path / "theirs")
    signature = sign(theirs, bundle)
    assert check_signature(bundle, signature) == public_key(theirs)
    with pytest.raises(SignatureError, match="not by"):
        check_signature(bundle, signature, trusted=public_key(settings))


@pytest.mark.parametrize("broken", [b"", b"{}", b"[]", b'{"public_key": "x", "signature": "y"}'])
def test_what_is_no_signature_is_refused(bundle: Path, broken: bytes) -> None:
    with pytest.raises(SignatureError, match="cannot be read"):
        check_signature(bundle, broken)


def test_bundles_of_jobs_are_signed(fake: Served, model_file: Path, settings: Settings, tmp_path: Path) -> None:
    with fake("succeed") as client:
        job_id = start(client, model_file)
        ended(client, job_id)
        artifacts = {a["kind"]: a for a in client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["items"]}
        bundle, signature = (
            client.get(f"/api/v1/artifacts/{artifacts[kind]['id']}/download").content
            for kind in ("bundle", "signature")
        )
        shown = client.get("/api/v1/signing-key").json()
    assert artifacts["signature"]["filename"] == artifacts["bundle"]["filename"] + ".sig"
    path = tmp_path / "downloaded.tar.gz"
    path.write_bytes(bundle)
    key = check_signature(path, signature)
    assert key == public_key(settings)
    assert shown == {"algorithm": "ed25519", "public_key": key.text, "fingerprint": key.fingerprint}
