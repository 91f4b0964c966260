"""The connections of the ingress: how many there may be, who has to go when there is no room, and what they wait for."""

import asyncio
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol

MOST: Final = 2000  # connections
SWEEP: Final = 0.25  # seconds between two looks at the deadlines

_YOUNG: Final = 1.0  # seconds in which a connection may say what it wants before it has to go for another
_SLOW: Final = 5.0  # seconds after which one whose request is still arriving has to


class Client(Protocol):
    """One connection, as far as it matters here."""

    address: str  # that are counted together
    since: float  # seconds of the clock, when it came to where it stands
    deadline: float  # when it is told that its time is over

    def expire(self) -> None:
        """Its deadline has passed."""

    def evict(self) -> None:
        """Its place is needed: it goes at once."""

    def end(self, *, at_once: bool = False) -> None:
        """The process ends: it goes when what was begun is done, or at once."""


Line = dict[Client, None]


class Clients:
    """All connections. Each stands in one line at most, in the order in which it came there; those at work in none.

    When there are `most`, or as many of one address as it may have, who waited longest goes for the next: first of those
    that never sent a request, then of those between two requests, then of those whose request has been arriving for long.
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
        """Count it; False when there is no room and nobody who could go for it."""
        among = self._addresses.get(client.address, 0)
        self._all[client] = None
        self._addresses[client.address] = among + 1
        if among >= self._per_address:
            return self._make_room(client.address)
        return len(self._all) <= self._most or self._make_room(None)

    def leave(self, client: Client) -> None:
        """Count it no more."""
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
        """Look for those whose time is over, again and again, on the running event loop, until `stop`."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self.sweep)  # first: whatever happens, it goes on
        self.date = formatdate(usegmt=True).encode()
        now = self.clock()
        for client in [client for client in self._all if client.deadline <= now]:
            client.expire()

    def stop(self) -> None:
        """End the sweeping."""
        if self._timer is not None:
            self._timer.cancel()

    def _make_room(self, address: str | None) -> bool:
        now = self.clock()
        for line, grace in ((self.new, _YOUNG), (self.idle, _YOUNG), (self.slow, _SLOW)):
            for client in line:
                if client.since > now - grace:
                    break  # those behind it came later
                if address is None or client.address == address:
                    self.leave(client)
                    client.evict()
                    return True
        return False


def counted(host: str) -> str:
    """Under what the connections of `host` are counted: an IPv6 network of 64 bits belongs to one."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
