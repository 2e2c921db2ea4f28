"""/docs: every operation of the document, with lines that can be run."""

from __future__ import annotations

import re
import shlex
from html import unescape
from urllib.parse import urlsplit

import pytest

from service.dashboard.reference import Operation, inline, read_groups
from tests.service.contract import document, operation_of, operations
from tests.signed_in import TestClient

URL = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def shown() -> dict[str, Operation]:
    return {each.id: each for group in read_groups(document(), base_url=URL) for each in group.operations}


def test_every_operation_is_shown_with_its_codes(shown: dict[str, Operation]) -> None:
    assert shown.keys() == {each.id for each in operations()}
    for operation in operations():
        assert {each.code for each in shown[operation.id].refusals} == {
            code for status in operation.responses for code in operation.codes(status)
        }
        titles = [body.title for body in shown[operation.id].bodies]
        assert ("Request" in titles) == ("requestBody" in operation.described)
        assert any(title.startswith("2") for title in titles)


def test_every_curl_line_asks_for_its_operation(shown: dict[str, Operation]) -> None:
    for operation in shown.values():
        words = shlex.split(operation.curl)
        assert words[0] == "curl"
        sends = {"-d", "--data-binary"} & set(words)
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if sends else "GET"
        asked = operation_of(method, urlsplit(words[-1]).path)
        assert asked is not None, operation.curl
        assert asked.id == operation.id


def test_a_curl_line_of_the_page_can_be_sent(client: TestClient) -> None:
    page = client.get("/docs").text
    lines = {unescape(line) for line in re.findall(r'<div class="command"><code>(.*?)</code>', page)}
    (retention,) = (line for line in lines if "storage/retention" in line)
    words = shlex.split(retention)
    answer = client.request(
        words[words.index("-X") + 1],
        words[-1],
        content=words[words.index("-d") + 1],
        headers=dict([words[words.index("-H") + 1].split(": ")]),
    )
    assert (answer.status_code, answer.json()["retention_days"]) == (200, 90)


def test_the_page_is_like_the_others(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert all(f'<summary id="{each.id}">' in answer.text for each in operations())


def test_code_in_descriptions_is_escaped() -> None:
    assert inline("a `<b>` & c") == "a <code>&lt;b&gt;</code> &amp; c"
