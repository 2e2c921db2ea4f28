"""The metrics that the documentation and the Grafana dashboard name are those that the server has."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from tests.service.conftest import ROOT
from tests.signed_in import TestClient

_NAME = re.compile(r"\btessera_[a-z_]+\b")


def test_every_metric_is_documented_and_drawn(client: TestClient) -> None:
    names = {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
    page = (ROOT / "docs" / "operations.md").read_text()
    assert set(_NAME.findall(page[page.index("## Monitor") : page.index("## What to do when")])) == names
    panels = json.loads((ROOT / "docs" / "grafana.json").read_text())["panels"]
    drawn = {name for panel in panels for target in panel["targets"] for name in _NAME.findall(target["expr"])}
    assert drawn == names
