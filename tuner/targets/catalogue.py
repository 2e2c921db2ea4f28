"""Targets that are described in files: those that come with Tessera, and people's own."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from tuner.errors import TargetError
from tuner.targets.spec import TargetSpec


@cache
def catalogue() -> tuple[TargetSpec, ...]:
    """The targets of ``catalogue.toml``, in its order."""
    return read_targets((files("tuner.targets") / "catalogue.toml").read_text(encoding="utf-8"))


def read_targets(text: str) -> tuple[TargetSpec, ...]:
    """The targets of a TOML file: a table each, named like the target, with the fields of `TargetSpec`.

    ``description`` and ``device`` may be left out. Raises `TargetError` (``invalid_target``) for anything else.
    """
    try:
        tables = tomllib.loads(text)
        return tuple(_target(name, table) for name, table in tables.items())
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise TargetError(
            f"The file does not describe targets: {error}",
            code="invalid_target",
            hint="Each target is a table: [my-board], with triple, tvm and threads in it. See docs/targets.md.",
        ) from error


def _target(name: str, table: object) -> TargetSpec:
    if not isinstance(table, dict):
        raise TypeError(f"{name} stands outside of a table")
    values = {"description": "", "device": name, **table, "name": name}
    if unknown := values.keys() - TargetSpec.__dataclass_fields__.keys():
        raise TypeError(f"{name} has no field {', '.join(sorted(unknown))}")
    return TargetSpec.from_dict(values)
