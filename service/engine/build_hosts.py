"""How a job's process is told which hosts build for it: in its environment, which is not to go further."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict

from tuner.measure.build_workers import BuildHost

_VARIABLE = "TESSERA_BUILD_HOSTS"


def told_of(hosts: Sequence[BuildHost]) -> dict[str, str]:
    """The environment that tells of them."""
    return {_VARIABLE: json.dumps([asdict(host) for host in hosts])} if hosts else {}


def build_hosts() -> tuple[BuildHost, ...]:
    """The hosts that this process was told of; they hold a key, so children are not told."""
    return tuple(BuildHost(**host) for host in json.loads(os.environ.pop(_VARIABLE, "[]")))
