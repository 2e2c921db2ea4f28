"""What a server does not start with, and what the first run needs: nothing."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from service.client import Tessera
from service.settings import Settings
from tests.service.access.test_tokens import STRONG
from tests.service.conftest import ROOT, secrets_in
from tests.signed_in import local_token

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tessera(data_dir: Path) -> Run:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TESSERA_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), **variables}
        command = [sys.executable, "-m", "service", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)

    return run


@contextmanager
def serving(data_dir: Path, *arguments: str, **variables: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """``tessera serve``: its URL, the lines that it printed until it was ready, and what it printed later."""
    environment = {**os.environ, "TESSERA_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "service", "serve", "--port", "0", *arguments]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=data_dir.parent
    )
    assert server.stdout is not None
    lines: list[str] = []
    try:
        ends = "For curl: " if not arguments else "Data: "
        while line := server.stdout.readline():
            lines.append(line)
            if line.startswith(ends):
                break
        url = re.match(r"Tessera is ready: (\S+)", lines[0])
        assert url is not None, lines
        rest: list[str] = []
        yield url[1], lines, rest
    finally:
        server.terminate()
        said, _ = server.communicate(timeout=15)
    rest.append(said)


def test_the_first_run_needs_nothing(data_dir: Path, tessera: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(data_dir) as (url, lines, rest):
        token_file = data_dir / "token"
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        link = re.search(r"^Sign in: (\S+)", "".join(lines), re.MULTILINE)
        assert link is not None
        with httpx2.Client(trust_env=False) as browser:
            assert browser.get(link[1]).status_code == 303
            assert browser.get(f"{url}/api/v1/jobs").status_code == 200
        export = re.search(r"^For curl: (export .*)$", "".join(lines), re.MULTILINE)
        assert export is not None
        shell = subprocess.run(
            ["sh", "-c", f'{export[1]}; printf %s "$TESSERA_TOKEN"'], capture_output=True, text=True, check=True
        )
        header = {"Authorization": f"Bearer {shell.stdout}"}
        assert httpx2.get(f"{url}/api/v1/jobs", headers=header, trust_env=False).status_code == 200
        # Commands and clients find the token by themselves, whether they know the URL or the data directory.
        assert tessera("jobs", "list", "--json").stdout == "[]\n"
        assert tessera("jobs", "list", "--json", "--url", url).stdout == "[]\n"
        again = tessera("token", "link")
        assert re.fullmatch(rf"{url}/sign-in\?code=tsl_\S+\n", again.stdout), again
        monkeypatch.setenv("TESSERA_DATA_DIR", str(data_dir))
        with Tessera(url) as client:
            assert client.jobs() == []
        wrong = httpx2.get(f"{url}/api/v1/jobs", headers={"Authorization": "Bearer tss_x"}, trust_env=False)
        assert wrong.status_code == 401
        token = local_token(Settings(data_dir=data_dir))
    output = "".join([*lines, *rest])
    assert token not in output
    # The one secret that is shown on purpose is a link, which signs in once.
    assert secrets_in(output) == [link[1].rpartition("=")[2]]


def test_a_public_address_without_tokens_is_refused(data_dir: Path, tessera: Run) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "gpu-box"):
        refused = tessera("serve", "--host", host, "--port", "0")
        assert refused.returncode == 2, refused
        assert f"{host} can be reached from other machines, and there is no token for them." in refused.stderr
        assert "tessera token create" in refused.stderr
        assert "Traceback" not in refused.stderr
    # A token that has ended counts for nothing.
    assert tessera("token", "create", "ci").returncode == 0
    assert tessera("token", "revoke", "ci").returncode == 0
    assert tessera("serve", "--host", "0.0.0.0", "--port", "0").returncode == 2


@pytest.mark.parametrize("way", ["token create", "TESSERA_BOOTSTRAP_TOKEN", "proxy"])
def test_a_public_address_is_taken_with(way: str, data_dir: Path, tessera: Run) -> None:
    variables, header = {}, {}
    if way == "token create":
        header["Authorization"] = f"Bearer {tessera('token', 'create', 'ci', '--scope', 'admin').stdout.strip()}"
    elif way == "TESSERA_BOOTSTRAP_TOKEN":
        variables[way], header["Authorization"] = STRONG, f"Bearer {STRONG}"
    else:
        variables["TESSERA_AUTHENTICATION"] = "proxy"
    with serving(data_dir, "--host", "0.0.0.0", **variables) as (url, lines, rest):
        assert httpx2.get(f"{url}/api/v1/tokens", headers=header, trust_env=False).status_code == 200
        anonymous = httpx2.get(f"{url}/api/v1/jobs", trust_env=False).status_code
        assert anonymous == (200 if way == "proxy" else 401)
        assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200  # what health checks ask
    assert secrets_in("".join([*lines, *rest])) == []  # its output is a log, somewhere


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("", "is empty"),
        ("tss_", "is no token"),
        ("change-me", "is no token"),
        ("tss_change-me", "is no token"),
        ("0123456789abcdef" * 4, "is no token"),
        ("tss_" + "0" * 64, "is no token"),
        ("tss_" + "ab" * 32, "is no token"),
    ],
)
def test_an_empty_or_default_secret_is_refused(tessera: Run, secret: str, why: str) -> None:
    refused = tessera("serve", "--port", "0", TESSERA_BOOTSTRAP_TOKEN=secret)
    assert refused.returncode == 2, refused
    assert f"TESSERA_BOOTSTRAP_TOKEN {why}" in refused.stderr
    assert "openssl rand" in refused.stderr
    assert len(secret) < 9 or secret not in refused.stderr


@pytest.mark.parametrize("kept", ["signing.key", "token", "tessera.sqlite3"])
def test_a_data_directory_that_others_can_read_is_refused(data_dir: Path, tessera: Run, kept: str) -> None:
    data_dir.mkdir(mode=0o755)
    (data_dir / kept).touch()
    for command in (["serve", "--port", "0"], ["token", "list"], ["db", "check"]):
        refused = tessera(*command)
        assert refused.returncode == 2, refused
        assert f"{kept} in it are secrets" in refused.stderr
        assert f"chmod 700 {data_dir}" in refused.stderr


def test_one_without_secrets_is_closed(data_dir: Path, tessera: Run) -> None:
    data_dir.mkdir(mode=0o755)
    assert tessera("token", "list", "--json").stdout == "[]\n"
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


def test_tokens_on_the_command_line(tessera: Run) -> None:
    made = tessera("token", "create", "ci", "--scope", "submit", "--expires", "90d")
    assert secrets_in(made.stdout) == [made.stdout.strip()]
    assert "The token ci (submit) lives until 20" in made.stderr
    assert "ci" in tessera("token", "list").stdout
    taken = tessera("token", "create", "ci")
    assert (taken.returncode, "already" in taken.stderr) == (2, True)
    assert tessera("token", "create", "ci2", "--expires", "soon").returncode == 2
    assert tessera("token", "create", " ").returncode == 2
    assert tessera("token", "create", "x", "--scope", "owner").returncode == 2
    revoked = tessera("token", "revoke", "ci", "--json")
    assert '"revoked_at": "20' in revoked.stdout
    unknown = tessera("token", "revoke", "ci")
    assert (unknown.returncode, "Hint: " in unknown.stderr) == (2, True)
    nowhere = tessera("token", "link")
    assert (nowhere.returncode, "No server runs" in nowhere.stderr) == (3, True)


def test_a_proxy_is_believed_only_where_it_is_named(data_dir: Path, tessera: Run) -> None:
    """Otherwise whoever asks could pretend to come from anywhere, and guess for ever."""
    for named, seen in ((None, "127.0.0.1"), ("127.0.0.1", "192.0.2.9")):
        variables = {"TESSERA_TRUSTED_PROXIES": named} if named else {}
        with serving(data_dir, **variables) as (url, _lines, _rest):
            header = {"Authorization": f"Bearer {local_token(Settings(data_dir=data_dir))}"}
            forwarded = {**header, "X-Forwarded-For": "192.0.2.9", "X-Forwarded-Proto": "https"}
            httpx2.delete(f"{url}/api/v1/jobs/x", headers=forwarded, trust_env=False)
            newest = httpx2.get(f"{url}/api/v1/audit?limit=1", headers=header, trust_env=False).json()["items"][0]
            assert newest["address"] == seen
