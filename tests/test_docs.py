"""The documentation names every route, setting, command and error code that exists, and none that does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from service.app import create_app
from service.cli.app import app
from service.settings import Settings
from tests.acceptance.screenshots import OTHERWISE, PICTURES, name_of
from tuner.events import Event

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md")])
ERROR_CODE = re.compile(r'(?:\bcode ?= ?|"code": )"([a-z]+(?:_[a-z]+)*)"')


def test_every_setting_is_documented_with_its_default() -> None:
    text = (DOCS / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `TESSERA_(\w+)` \| (.*?) \|", text, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        assert name.upper() in rows, f"TESSERA_{name.upper()} is missing in docs/settings.md"
        if field.default_factory is None and field.default is not None:
            documented = re.findall(r"`(\S+?)`", rows[name.upper()])
            assert any(_same(value, field.default) for value in documented), f"{name}: {documented} ≠ {field.default}"
    of_the_service = text[text.index("## Service") : text.index("## Command line")]
    known = {name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"`TESSERA_(\w+)`", of_the_service)) <= known


def _same(documented: str, default: object) -> bool:
    if isinstance(default, int | float):
        return documented.replace(".", "", 1).isdecimal() and float(documented) == float(default)
    return documented == str(default)


def test_every_route_is_documented_and_no_other() -> None:
    paths = create_app(engine=False).openapi()["paths"]
    exist = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    exist -= {route for route in exist if route.startswith("HEAD ")}
    assert len(exist) > 20
    documented = set(re.findall(r"^### `([A-Z]+ /\S+)`$", (DOCS / "rest.md").read_text(), re.MULTILINE))
    assert exist - documented == set(), "missing in docs/rest.md"
    assert documented - exist == set(), "in docs/rest.md only"


def commands(command: Any, path: str = "tessera") -> Iterator[tuple[str, Any]]:
    """Every command with its path; groups themselves are left out."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from commands(below, f"{path} {name}")


def test_every_command_and_option_is_documented_and_no_other() -> None:
    text = (DOCS / "cli.md").read_text()
    sections = dict(re.findall(r"^### `(tessera[ a-z-]*?)(?: [A-Z_]+)*`$(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    exist = dict(commands(typer.main.get_command(app)))
    assert exist.keys() == sections.keys()
    for path, command in exist.items():
        # Options that a whole group shares are named above its first command.
        group = next(part for part in parts if re.search(rf"^### `{path}\b", part, re.MULTILINE))
        shown = sections[path] + group[: group.index("###")]
        options = {name for option in command.params if option.param_type_name == "option" for name in option.opts}
        assert {name for name in options if f"`{name}`" not in shown} == set(), path


def test_the_how_to_names_commands_and_options_that_exist() -> None:
    exist = dict(commands(typer.main.get_command(app)))
    lines = re.findall(r"^\.venv/bin/(tessera [^#\n]*)", (DOCS / "how-to.md").read_text(), re.MULTILINE)
    assert len(lines) > 12
    for line in lines:
        words = line.split()
        path = next(name for count in (3, 2) if (name := " ".join(words[:count])) in exist)
        options = {name for option in exist[path].params if option.param_type_name == "option" for name in option.opts}
        passed_on = {"--benchmark", "--profile"} if path == "tessera run" else set()
        assert {word for word in words if word.startswith("--")} <= options | passed_on, line


def test_every_event_of_a_job_is_documented() -> None:
    text = (DOCS / "rest.md").read_text()
    table = text[text.index("| event |") : text.index("curl -N -H")]
    kinds = {kind.kind for kind in Event.__subclasses__()}
    assert "trial" in kinds
    assert kinds <= set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))


def test_every_metric_is_documented() -> None:
    source = (ROOT / "service" / "api" / "health.py").read_text()
    metrics = set(re.findall(r'"(tessera_\w+)"', source))
    assert len(metrics) > 3
    text = (DOCS / "rest.md").read_text()
    assert {metric for metric in metrics if f"`{metric}`" not in text} == set()


def test_every_error_code_is_documented() -> None:
    documented = set()
    for page in ("rest.md", "cli.md", "client.md"):
        text = (DOCS / page).read_text()
        documented |= set(re.findall(r"`([a-z_]+)`", text[text.index("## Error codes") :]))
    raised = {
        code
        for folder in ("service", "tuner")
        for path in (ROOT / folder).rglob("*.py")
        for code in ERROR_CODE.findall(path.read_text())
    }
    assert len(raised) > 30
    assert raised <= documented, f"undocumented in docs/: {sorted(raised - documented)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), f"{link} in {page.name}"
        if anchor:
            assert anchor in {_anchor(title) for title in re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)}


def test_every_picture_is_made_by_the_command() -> None:
    made = {name_of(picture, "wide", "light") for picture in PICTURES} | {name_of(*shot) for shot in OTHERWISE}
    assert {path.name for path in (DOCS / "images").iterdir()} == made
    assert sum(path.stat().st_size for path in (DOCS / "images").iterdir()) < 1_500_000


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")
