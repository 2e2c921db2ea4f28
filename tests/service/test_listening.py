"""The server's socket."""

from __future__ import annotations

import socket

from service.listening import listen


def test_connections_send_the_body_without_waiting_for_the_heads_acknowledgement() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
