"""Looks up addresses and connects to them, but only to permitted ones.

The address itself is checked, when a socket for it is made. Nothing is looked up after that, so DNS rebinding
gains nothing. A connection stays with the address that it was made to.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from time import monotonic
from typing import Any, Final

from pipeline.delivery.addresses import Network, refusal, refused_host
from workers.net.timings import ATTEMPT_TIMES

MOST_ADDRESSES: Final = 8  # of a name; further ones are ignored
# A look-up that hangs cannot be cancelled and keeps its thread until the resolver gives up, after ten seconds by default. So
# names whose last look-up was slow have threads of their own, and all the others need not wait for them.
LOOKUPS_AT_ONCE: Final = 256
SLOW_LOOKUPS_AT_ONCE: Final = 32
SLOW: Final = 1.0  # seconds
MOST_SLOW: Final = 10_000  # names that are remembered

_ADVICE: Final = "WAXSEAL_ALLOW_NETWORKS lists exceptions"

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]  # as getaddrinfo(3) returns it
LookUp = Callable[..., Sequence[AddressInfo]]


class Refused(OSError):
    """Connecting to the address is not permitted."""


class Dialler:
    """Looks up names and makes sockets for permitted addresses: all public ones, and those in `allowed`.

    With `allowed` None every address is permitted: for destinations that an operator has configured.
    """

    def __init__(self, allowed: Sequence[Network] | None, look_up: LookUp = socket.getaddrinfo) -> None:
        self._allowed = allowed
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, "dns")
        self._slow_threads = ThreadPoolExecutor(SLOW_LOOKUPS_AT_ONCE, "dns-slow")
        self._slow: set[str] = set()

    async def close(self) -> None:
        """Cancel queued look-ups; do not wait for running ones."""
        for threads in (self._threads, self._slow_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def check(self, address: str) -> None:
        """Raise `Refused` unless `address` is a literal address and permitted."""
        if self._allowed is not None:
            check_address(address, self._allowed)

    async def find(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[AddressInfo]:
        """The permitted addresses of `host`. Raises `Refused` when none is permitted, and OSError when it has none."""
        if self._allowed is not None:
            check_host(host, self._allowed)
        look = partial(self._looked_up, host, port, family)
        threads = self._slow_threads if host in self._slow else self._threads
        try:
            found = await asyncio.get_running_loop().run_in_executor(threads, look)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, f"{host!r:.80} cannot be a name: {error}") from None
        return _callable(host, port, found, self.check)

    def _looked_up(self, host: str, port: int, family: int) -> Sequence[AddressInfo]:
        """Look up, in a thread, and note whether that was slow."""
        began = monotonic()
        try:
            return self._look_up(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        finally:
            if monotonic() - began < SLOW:
                self._slow.discard(host)
            else:
                if len(self._slow) >= MOST_SLOW:
                    self._slow.clear()
                self._slow.add(host)

    def make_socket(self, info: AddressInfo) -> socket.socket:
        """A socket for this address. Raises `Refused`: this is the last check, whatever the caller checked before."""
        family, kind, protocol, _, address = info
        self.check(str(address[0]))
        times = ATTEMPT_TIMES.get()
        if times is not None:
            times.dialled = times.dialled or monotonic()
            times.address = endpoint_name(address)
        return socket.socket(family, kind, protocol)

    async def dial(self, host: str, port: int, seconds: float) -> socket.socket:
        """A socket connected to the first address that answers; each gets its share of `seconds`.

        Raises what `find` raises, or the last address's OSError.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        error = OSError(f"{host} has no address")
        addresses = await self.find(host, port)
        for position, info in enumerate(addresses):
            try:
                return await self._call(info, (until - loop.time()) / (len(addresses) - position))
            except OSError as failure:
                error = failure
        raise error

    async def _call(self, info: AddressInfo, seconds: float) -> socket.socket:
        made = self.make_socket(info)
        try:
            made.setblocking(False)
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(made, info[4])
        except BaseException:
            made.close()
            raise
        return made


def dial_blocking(
    host: str, port: int, allowed: Sequence[Network], left: Callable[[], float], look_up: LookUp = socket.getaddrinfo
) -> socket.socket:
    """The blocking form of `Dialler.dial`: a connected socket, within the seconds that `left` gives.

    Raises `Refused` when no address of `host` is permitted, and the last address's OSError when none answers.
    """
    check_host(host, allowed)
    found = look_up(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    addresses = _callable(host, port, found, lambda address: check_address(address, allowed))
    failure = OSError(f"{host} has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(left() / (len(addresses) - tried))
            made.connect(address)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


def check_address(address: str, allowed: Sequence[Network]) -> None:
    """Raise `Refused` unless `address` is a literal address and permitted."""
    try:
        why = refusal(ip_address(address), allowed)
    except ValueError:
        raise Refused(f"{address} must not be called: not an address") from None
    if why is not None:
        raise Refused(f"{address} must not be called: {why}; {_ADVICE}")


def check_host(host: str, allowed: Sequence[Network]) -> None:
    """Raise `Refused` for a host that is not permitted, if that is known without a look-up."""
    if why := refused_host(host, allowed):
        raise Refused(f"{host} must not be called: {why}; {_ADVICE}")


def _callable(host: str, port: int, found: Sequence[AddressInfo], check: Callable[[str], None]) -> list[AddressInfo]:
    """The addresses in `found` that pass `check`, in exactly the checked form. Raises `Refused` when none passes."""
    passed, refused = [], Refused(f"{host} has no address")
    for family, kind, protocol, name, address in found:
        text = _text(address)
        try:
            check(text)
        except Refused as error:
            refused = error
        else:
            passed.append((family, kind, protocol, name, (text, port, *address[2:])))
    if not passed:
        raise refused
    return passed[:MOST_ADDRESSES]


def endpoint_name(address: Sequence[Any]) -> str:
    """The text of an address and its port: `192.0.2.1:443`, `[2001:db8::1]:443`."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _text(address: Sequence[Any]) -> str:
    """The address without its port, with its zone if it has one."""
    host = str(address[0])
    return f"{host}%{address[3]}" if len(address) == 4 and address[3] and "%" not in host else host
