"""The names under which this server is asked.

A page of another site can point its own name at this machine (DNS rebinding) and would then be a page of this very
origin. The request still carries that name: only names of ours are answered. An address in numbers is nobody's name.
"""

from __future__ import annotations

import ipaddress
import re

from service.settings import Settings

# Nothing else: what an address is built from the header, such as a link, must not be led astray by it.
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._-]+))(?::[0-9]{1,5})?")


class AllowedHosts:
    """``localhost``, any address in numbers, the name that the server is bound to, and those of the settings."""

    def __init__(self, settings: Settings) -> None:
        given = [name.strip().lower() for name in (settings.allowed_hosts or "").split(",")]
        self._names = {"localhost", settings.host.lower(), *(name for name in given if name)}
        self._domains = tuple(name.removeprefix("*") for name in given if name.startswith("*."))

    def allow(self, host: str) -> bool:
        """Whether a ``Host`` header, with its port or without, is one of them; ``*.x.org`` is every name below."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found["v6"] or found["name"]).lower().removesuffix(".")
        return name in self._names or name.endswith(self._domains) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
