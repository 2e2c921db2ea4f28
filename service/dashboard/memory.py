"""What the job page shows of memory: figures, the front, the timeline and the windows of every chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from service.dashboard.memory_pictures import front_chart, timeline_chart, windows_drawing
from service.schemas.artifacts import Front, FrontPoint


@dataclass(frozen=True, kw_only=True)
class ShownChain:
    """A chain that this build computes by windows, with a drawing for each of its parts; ``extra_macs`` is the share of
    its multiplications that are done again at the seams of strips and tiles."""

    name: str
    way: str
    count: int
    drawings: tuple[Markup, ...]
    ring_bytes: int
    extra_macs: float


@dataclass(frozen=True, kw_only=True)
class ShownMemory:
    """Of a job that ended with a bundle. Bytes beside weights and inputs; None is not known."""

    planned_bytes: int | None
    measured_bytes: int | None
    limit_bytes: int | None
    usual_alive_bytes: int | None
    alive_bytes: int | None
    points: tuple[FrontPoint, ...]
    front: Markup
    timeline: Markup
    functions: int
    chains: tuple[ShownChain, ...]


def shown_memory(manifest: Mapping[str, Any] | None, front: Front) -> ShownMemory | None:
    """None before there is a bundle, and for bundles of versions that kept nothing of memory."""
    memory = (manifest or {}).get("memory")
    if not isinstance(memory, Mapping) or not memory:
        return None
    after, before = ([int(step["bytes"]) for step in memory.get(name) or ()] for name in ("timeline", "usual_timeline"))
    return ShownMemory(
        planned_bytes=memory.get("planned_peak_bytes"),
        measured_bytes=memory.get("measured_peak_bytes"),
        limit_bytes=memory.get("limit_bytes"),
        usual_alive_bytes=max(before, default=None),
        alive_bytes=max(after, default=None),
        points=tuple(front.points),
        front=front_chart(front.points, front.memory_limit_bytes),
        timeline=timeline_chart(before, after),
        functions=len(after),
        chains=tuple(_chain(each) for each in memory.get("windows") or ()),
    )


def _chain(windows: Mapping[str, Any]) -> ShownChain:
    parts = windows["parts"]
    macs = sum(int(part["macs"]) for part in parts)
    return ShownChain(
        name=str(windows["chain"]),
        way=str(windows["way"]),
        count=int(windows["count"]),
        drawings=tuple(windows_drawing(part) for part in parts),
        ring_bytes=max(sum(each["ring_bytes"] or 0 for each in part["operators"]) for part in parts),
        extra_macs=sum(int(part["computed_macs"]) for part in parts) / macs - 1 if macs else 0.0,
    )
