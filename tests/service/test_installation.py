"""What `pip install tessera` brings: the client and commands that talk to a server; others say what to install."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from zipfile import Path as ZipPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.cli.installed import SERVER_MODULES, ServerNotInstalled, require_server
from service.settings import Settings
from tests.service.conftest import ROOT
from tests.service.test_client import serving
from tests.signed_in import token_of
from tests.tuner.test_bundle import bundle, manifest, network

__all__ = ["bundle", "manifest", "network"]  # fixtures

# The start of a program that cannot import any of the extra's packages.
WITHOUT_SERVER = f"import sys\nfor name in {SERVER_MODULES!r}:\n    sys.modules[name] = None\n"
HINT = "pip install 'tessera[server]'"
Command = Callable[..., subprocess.CompletedProcess[str]]


def child(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a command does that sees nothing of this environment."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", **variables}
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=120
    )


@pytest.fixture
def tessera(tmp_path: Path) -> Command:
    """The command, in this installation without the extra's packages."""
    program = f"{WITHOUT_SERVER}from service.cli import main\nmain()"
    return lambda *arguments: child(
        sys.executable, "-c", program, *arguments, folder=tmp_path, PYTHONPATH=str(ROOT), PYTHONWARNINGS="error"
    )


def test_the_modules_are_those_of_the_extra() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {Requirement(text).name for text in settings["project"]["optional-dependencies"]["server"]}
    modules = settings["tool"]["deptry"]["package_module_name_map"]
    assert {modules.get(name, name.replace("-", "_")) for name in names} == set(SERVER_MODULES)
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each.get("source_modules") == ["service.client"]]
    # Those two are not imported by anything: zig is run, and FastAPI loads the parser of forms.
    assert set(contract["forbidden_modules"]) == set(SERVER_MODULES) - {"ziglang", "python_multipart"}


def test_with_the_server_installed_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    require_server("a test")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ServerNotInstalled, match="uvicorn is not installed") as caught:
        require_server("a test")
    assert (caught.value.code, caught.value.hint) == ("server_not_installed", HINT)


def test_the_client_is_imported_without_the_server(tmp_path: Path) -> None:
    program = f"{WITHOUT_SERVER}from service.client import Tessera\nprint(Tessera('http://127.0.0.1:9'))"
    done = child(sys.executable, "-c", program, folder=tmp_path, PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("Tessera('http://127.0.0.1:9')\n", "")


@pytest.mark.parametrize("command", ["", "tune", "jobs", "devices serve", "run", "serve", "doctor"])
def test_help_needs_no_server(tessera: Command, command: str) -> None:
    done = tessera(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: tessera {command}".rstrip() in done.stdout.replace("-c ", "tessera ")


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "demo",
        "doctor",
        "db check",
        "db upgrade",
        "token list",
        "devices serve",
        "jobs list",
        "targets list",
        "run x.tar.gz",
    ],
)
def test_commands_that_need_the_server_say_so(tessera: Command, tmp_path: Path, command: str) -> None:
    done = tessera(*command.split())
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    message, hint = done.stderr.splitlines()
    assert message.startswith("Error: ")
    assert "tvm is not installed" in message
    assert HINT in hint
    assert not any(tmp_path.rglob("*.sqlite3"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tessera's own; nothing is fetched for it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (path,) = folder.iterdir()
    return path


def required(found: Distribution, extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


@pytest.fixture(scope="module")
def client_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment with the wheel and what it requires without extras: copied from here, where all
    of it is in the locked versions."""
    folder = tmp_path_factory.mktemp("client") / "venv"
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (metadata,) = [path for path in ZipPath(wheel).iterdir() if path.name.endswith(".dist-info")]
    waiting = list(required(PathDistribution(metadata)))
    assert len(waiting) > 5
    copied: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if (name := canonicalize_name(requirement.name)) in copied:
            continue
        copied.add(name)
        found = distribution(name)
        waiting += required(found, frozenset(requirement.extras))
        for file in found.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                place = site / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), place)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)
    return folder / "bin"


def test_the_wheel_alone_is_a_client(
    client_only: Path,
    settings: Settings,
    model_file: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_JOB", "succeed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        token = {"TESSERA_TOKEN": os.environ["TESSERA_TOKEN"]} if "TESSERA_TOKEN" in os.environ else {}
        return child(str(client_only / "tessera"), *arguments, folder=tmp_path, **token)

    missing = child(str(client_only / "python"), "-c", "import fastapi", folder=tmp_path)
    assert "ModuleNotFoundError" in missing.stderr
    assert "Usage: tessera" in run("--help").stdout
    with serving(settings) as url:
        program = (
            "import sys\nfrom service.client import Tessera\nwith Tessera(sys.argv[1]) as tessera:\n"
            "    print(tessera.tune(sys.argv[2], trials=8).wait(timeout_s=60).download('bundles'))"
        )
        python, token = str(client_only / "python"), {"TESSERA_TOKEN": token_of(url)}
        done = child(python, "-c", program, url, str(model_file), folder=tmp_path, **token)
        assert (done.stdout, done.stderr) == ("bundles/perceptron-host.tar.gz\n", "")
        (job,) = json.loads(run("jobs", "list", "--url", url, "--json").stdout)
        assert job["state"] == "succeeded"
        tuned = run("tune", str(model_file), "--trials", "8", "--url", url, "--json")
        assert json.loads(tuned.stdout)["job"]["state"] == "succeeded", tuned.stderr
        boards = tmp_path / "boards.toml"
        boards.write_text('[mine]\ntriple = "aarch64-linux-gnu"\ntvm = { kind = "llvm" }\nthreads = 2\n')
        assert "Added mine" in run("targets", "add", str(boards), "--url", url).stdout
    refused = run("serve", "--port", "0")
    assert (refused.returncode, HINT in refused.stderr) == (2, True), refused.stderr
    verified = run("verify", str(bundle))
    assert (verified.returncode, verified.stderr) == (0, "")
    assert (
        "is whole. What its requirements.txt names is not installed here (tvm), so that it was not run."
        in verified.stdout
    )
    assert "wheel: " in run("wheel", str(bundle)).stdout
    assert run("run", str(bundle)).returncode == 2
