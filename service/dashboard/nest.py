"""The loops of a schedule as a tree of boxes, and the difference between its function before and after.

Made from a job's ``schedules`` artifact (`tuner.shown_schedules`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ShownLoop:
    """``label`` names what it runs through; ``name`` is the loop variable."""

    label: str
    name: str
    extent: int | None


@dataclass(frozen=True, kw_only=True)
class Box:
    """Loops of one ``kind`` directly inside of each other, or one line of another sort (`tuner.loop_nest`)."""

    what: str
    line: Mapping[str, Any]
    loops: tuple[ShownLoop, ...] = ()
    inside: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DiffLine:
    """``sign`` is ``+`` (after only), ``-`` (before only) or a space."""

    sign: str
    text: str


@dataclass(kw_only=True)
class _Node:
    line: Mapping[str, Any]
    inside: list[_Node] = field(default_factory=list)


def boxes(lines: Sequence[Mapping[str, Any]]) -> tuple[Box, ...]:
    """The tree of a flat list of lines with depths."""
    root = _Node(line={"what": "root"})
    path: list[tuple[int, _Node]] = [(-1, root)]
    for line in lines:
        while path[-1][0] >= line["depth"]:
            path.pop()
        node = _Node(line=line)
        path[-1][1].inside.append(node)
        path.append((line["depth"], node))
    return tuple(_box(node) for node in root.inside)


def diff(before: str, after: str) -> list[DiffLine]:
    """Every line of both, those of the former first where they differ."""
    old, new = before.splitlines(), after.splitlines()
    lines: list[DiffLine] = []
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [DiffLine(sign=" ", text=text) for text in old[i:j]]
        else:
            lines += [DiffLine(sign="-", text=text) for text in old[i:j]]
            lines += [DiffLine(sign="+", text=text) for text in new[k:m]]
    return lines


def _box(node: _Node) -> Box:
    if node.line["what"] != "loop":
        return Box(what=node.line["what"], line=node.line, inside=tuple(_box(each) for each in node.inside))
    loops, last = [_loop(node.line)], node
    while len(last.inside) == 1 and _continues(node.line, last.inside[0].line):
        last = last.inside[0]
        loops.append(_loop(last.line))
    return Box(what="loop", line=node.line, loops=tuple(loops), inside=tuple(_box(each) for each in last.inside))


def _continues(line: Mapping[str, Any], inner: Mapping[str, Any]) -> bool:
    return inner["what"] == "loop" and inner["kind"] == line["kind"] and inner["unroll"] is None


def _loop(line: Mapping[str, Any]) -> ShownLoop:
    return ShownLoop(label="·".join(line["of"]) or line["name"], name=line["name"], extent=line["extent"])
