"""How many cases are run, and the warm process that they are run in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz.gate_process import Gate

CASES = int(os.environ.get("TESSERA_TEST_FUZZ_CASES", "200"))
# Settings of a server that is asked more than anybody may ask it.
UNLIMITED: dict[str, Any] = {"token_requests_per_s": 0, "address_requests_per_s": 0}


@pytest.fixture(scope="session")
def gate() -> Iterator[Gate]:
    """One for each process of the test run."""
    with Gate() as gate:
        yield gate
