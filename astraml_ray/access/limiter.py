"""How many failed tokens one address may send. Pure: the time is given."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["FailureLimiter", "source_of"]


@dataclass
class _Account:
    tries: float
    at: float


class FailureLimiter:
    """A bucket of tries per address: each failure takes one, and they come back with time.

    Whoever has a token never notices it. The number of addresses is bounded, so that it cannot fill the memory; what
    is forgotten first is who failed longest ago. Not thread-safe.
    """

    def __init__(self, *, tries: int = 10, per_s: float = 60.0, sources: int = 10_000) -> None:
        """
        Args:
            tries: Failures in a row that cost nothing.
            per_s: Seconds in which all tries come back.
            sources: Addresses remembered at most.
        """
        self._tries = tries
        self._rate = tries / per_s
        self._sources = sources
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def wait_s(self, source: str, *, now: float) -> float:
        """Seconds until the address may try again; 0 if it may now."""
        account = self._accounts.get(source_of(source))
        if account is None:
            return 0.0
        left = self._left(account, now)
        return 0.0 if left >= 1 else (1 - left) / self._rate

    def failed(self, source: str, *, now: float) -> None:
        """Takes a try away."""
        key = source_of(source)
        account = self._accounts.pop(key, None)
        left = self._left(account, now) if account else float(self._tries)
        self._accounts[key] = _Account(max(0.0, left - 1), now)
        while len(self._accounts) > self._sources:
            self._accounts.popitem(last=False)

    def _left(self, account: _Account, now: float) -> float:
        # A clock that was set back gives nothing.
        return min(float(self._tries), account.tries + max(0.0, now - account.at) * self._rate)


def source_of(address: str) -> str:
    """The network that is taken for one sender: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
