"""The socket that a server listens on, and who reaches it."""

from __future__ import annotations

import ipaddress
import socket


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket, listening; connections inherit its options. Raises `OSError`.

    Head and body of a response are sent by two calls. Without TCP_NODELAY the second waits up to 40 ms until the first
    is acknowledged; asyncio sets it only on sockets that name their protocol, and accepted ones do not.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
