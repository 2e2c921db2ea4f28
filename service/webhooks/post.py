"""One message to an address: the name is looked up once, and what was looked at is what is connected to."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence

import anyio
import httpx2
from anyio.from_thread import start_blocking_portal

from service.webhooks.addresses import Reach

WITHIN_S = 10.0
_CONNECT_WITHIN_S = 5.0


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, reach: Reach, tls: ssl.SSLContext, within_s: float = WITHIN_S
) -> int:
    """The status of the answer; its body is not read, and no redirect followed.

    Raises `AddressRefused`, ``httpx2.HTTPError``, ``httpx2.InvalidURL`` and OSError, TimeoutError among them.
    """
    target = httpx2.URL(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    addresses = reach.addresses_of(target.raw_host.decode("ascii"), port)
    with start_blocking_portal() as portal:  # a loop of its own, whatever runs in this thread
        return portal.call(_post, target, addresses, body, headers, tls, within_s)


async def _post(
    target: httpx2.URL,
    addresses: Sequence[str],
    body: bytes,
    headers: Mapping[str, str],
    tls: ssl.SSLContext,
    within_s: float,
) -> int:
    """To the first address that can be connected to, under the name of the target, which its certificate is for."""
    named = {"Host": target.netloc.decode("ascii"), **headers}
    sni = {"sni_hostname": target.raw_host.decode("ascii")}
    timeout = httpx2.Timeout(within_s, connect=_CONNECT_WITHIN_S)
    with anyio.fail_after(within_s):  # an answer that trickles never times out by itself
        async with httpx2.AsyncClient(verify=tls, timeout=timeout, trust_env=False, follow_redirects=False) as http:
            for number, address in enumerate(addresses, start=1):
                url = target.copy_with(host=address)
                try:
                    async with http.stream("POST", url, content=body, headers=named, extensions=sni) as answer:
                        return answer.status_code
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if number == len(addresses):
                        raise
    raise AssertionError("there is an address")
