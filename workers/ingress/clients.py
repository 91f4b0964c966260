"""The connections of the ingress: their limits, their deadlines, and which one is evicted at a limit."""

import asyncio
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol

MOST: Final = 2000  # connections
SWEEP: Final = 0.25  # seconds between two checks of the deadlines

_YOUNG: Final = 1.0  # seconds without a request until a connection may be evicted
_SLOW: Final = 5.0  # seconds until a connection whose request is still arriving may be evicted


class Client(Protocol):
    """The part of a connection that its limits depend on."""

    address: str  # connections of one address are counted together
    since: float  # when it entered its line, in seconds of the clock
    deadline: float  # when `expire` is called

    def expire(self) -> None:
        """Called when the deadline has passed."""

    def evict(self) -> None:
        """Called when another connection needs the place: close at once."""

    def end(self, *, at_once: bool = False) -> None:
        """Called when the process ends: close when pending requests are answered, or at once."""


Line = dict[Client, None]


class Clients:
    """All connections. Each is in one line at most, in the order of entry; those whose request is handled are in none.

    When there are `most`, or `per_address` of one address, a new connection evicts the one that has waited longest: first among
    those that never sent a request, then those between two requests, then those whose request has been arriving for long.
    """

    def __init__(self, per_address: int, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self.new: Line = {}
        self.idle: Line = {}
        self.slow: Line = {}
        self.clock = clock
        self.date = formatdate(usegmt=True).encode()
        self._all: dict[Client, None] = {}
        self._addresses: dict[str, int] = {}
        self._most = most
        self._per_address = per_address
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._all))

    def enter(self, client: Client) -> bool:
        """Count the connection; False when a limit is reached and no other connection can be evicted."""
        among = self._addresses.get(client.address, 0)
        self._all[client] = None
        self._addresses[client.address] = among + 1
        if among >= self._per_address:
            return self._evict_for(client.address)
        return len(self._all) <= self._most or self._evict_for(None)

    def leave(self, client: Client) -> None:
        """Remove the connection."""
        if client not in self._all:
            return
        del self._all[client]
        left = self._addresses[client.address] - 1
        if left:
            self._addresses[client.address] = left
        else:
            del self._addresses[client.address]
        for line in (self.new, self.idle, self.slow):
            line.pop(client, None)

    def sweep(self) -> None:
        """Expire connections past their deadlines, periodically on the running event loop, until `stop`."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self.sweep)  # first, so that an exception does not end it
        self.date = formatdate(usegmt=True).encode()
        now = self.clock()
        for client in [client for client in self._all if client.deadline <= now]:
            client.expire()

    def stop(self) -> None:
        """End the sweeping."""
        if self._timer is not None:
            self._timer.cancel()

    def _evict_for(self, address: str | None) -> bool:
        now = self.clock()
        for line, grace in ((self.new, _YOUNG), (self.idle, _YOUNG), (self.slow, _SLOW)):
            for client in line:
                if client.since > now - grace:
                    break  # the ones behind it came later
                if address is None or client.address == address:
                    self.leave(client)
                    client.evict()
                    return True
        return False


def counted(host: str) -> str:
    """The address under which connections of `host` are counted: for IPv6 the /64 network, which one subscriber has."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
