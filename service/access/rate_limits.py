"""How often somebody may ask: token buckets (https://en.wikipedia.org/wiki/Token_bucket), in memory."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Hashable

from service.settings import Settings

# A dashboard that opens, or a script that has caught up, may ask for so many seconds' worth at once.
BURST_S = 5.0
_MOST_BUCKETS = 10_000


class Buckets:
    """One bucket a key: it holds ``burst`` at most, and ``rate_per_s`` flow in. A rate of 0 limits nothing.

    The least recently used one is forgotten when there are too many.
    """

    def __init__(self, rate_per_s: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s, self._burst, self._clock = rate_per_s, burst, clock
        self._lock = threading.Lock()
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def take(self, key: Hashable) -> float:
        """Take one; 0 when there was one, else the seconds until there is."""
        return self._ask(key, take=1.0)

    def wait_s(self, key: Hashable) -> float:
        """The same without taking it."""
        return self._ask(key, take=0.0)

    def _ask(self, key: Hashable, *, take: float) -> float:
        if self._rate_per_s == 0:
            return 0.0
        now = self._clock()
        with self._lock:
            held, then = self._buckets.pop(key, (self._burst, now))
            held = min(self._burst, held + (now - then) * self._rate_per_s)
            wait_s = max(0.0, (1.0 - held) / self._rate_per_s)
            self._buckets[key] = held - take if not wait_s else held, now
            if len(self._buckets) > _MOST_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
        return wait_s


class RateLimits:
    """The limits of one server: requests of a token and of an address, and sign-ins of an address that failed."""

    def __init__(self, settings: Settings) -> None:
        self.tokens = _of(settings.token_requests_per_s)
        self.addresses = _of(settings.address_requests_per_s)
        self.failures = Buckets(settings.failed_sign_ins_per_min / 60, settings.failed_sign_ins_per_min)


def _of(rate_per_s: float) -> Buckets:
    return Buckets(rate_per_s, max(1.0, rate_per_s * BURST_S))


def network_of(address: str) -> str:
    """What limits are counted by: an IPv4 address, and of IPv6 the /64 of which one customer has all addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
