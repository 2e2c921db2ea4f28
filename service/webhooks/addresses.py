"""Which addresses webhooks may reach.

A server reaches more than whoever adds a webhook may: other services of its machine and its network, what a cloud tells
its machines. Only the internet is told anything, and the networks that the settings name.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.settings import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK = "127.0.0.0/8, ::1"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(Exception):
    """An address that webhooks may not reach; the message says which."""


class Reach:
    """The internet, and the networks of ``TESSERA_WEBHOOK_NETWORKS``. Without that setting loopback is one of them
    where only this machine reaches the server: then whoever adds a webhook reaches it anyway."""

    def __init__(self, settings: Settings) -> None:
        given = settings.webhook_networks
        if given is None and settings.is_of_one_machine:
            given = _LOOPBACK
        self._networks = parse_networks(given or "")

    def allows(self, address: str) -> bool:
        """Of an address in numbers. Raises ValueError for anything else."""
        asked = ipaddress.ip_address(address)
        meant = _meant(asked)
        if meant.is_global and not meant.is_multicast:
            return True
        return any(each in network for network in self._networks for each in (asked, meant))

    def addresses_of(self, host: str, port: int) -> list[str]:
        """What a host stands for at this moment, as far as it may be reached, in numbers.

        Raises `AddressRefused` where nothing of it may, and OSError for a name that nobody knows.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [address for address in addresses if self.allows(address)]
        if not allowed:
            raise AddressRefused(f"{host} is {', '.join(addresses)}: in no network of TESSERA_WEBHOOK_NETWORKS")
        return allowed


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks and addresses with commas between them: ``192.168.1.0/24, fd00::1``. Raises ValueError."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _meant(address: _Address) -> _Address:
    """The IPv4 address that gateways make of one of IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
