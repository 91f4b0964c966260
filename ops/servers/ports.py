"""Free ports on the loopback address, claimed so that they stay free until a server listens on them."""

import random
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST: Final = 20_000


class Claims:
    """Ports that this process reserves for its servers: no other Waxseal system on this machine chooses them.

    A server that died is restarted on its port, after a delay in which the port looks free. A claim is the name of an abstract
    socket, which the kernel frees when this process ends, however it ends. On systems other than Linux nothing is claimed.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self, port: int) -> bool:
        """Claim the port; returns whether it is ours now."""
        if port in self._held or sys.platform != "linux":
            return True
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0waxseal/port/{port}")
        except OSError:
            name.close()
            return False
        self._held[port] = name
        return True

    def release(self) -> None:
        """Give up all claims."""
        for name in self._held.values():
            name.close()
        self._held.clear()


def choose_ports(
    names: Iterable[str], preferred: Mapping[str, int], avoid: Iterable[int] = (), claims: Claims | None = None
) -> dict[str, int]:
    """Give each name a port that nothing listens on and no other system claims: the preferred one if it is free, else any.

    The ports are claimed in `claims`.
    """
    taken = set(avoid)
    chosen = {}
    ours = claims or Claims()
    try:
        for name in names:
            chosen[name] = _choose(preferred.get(name), taken, ours)
            taken.add(chosen[name])
    finally:
        if claims is None:
            ours.release()
    return chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now; connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether something accepts connections on `port`."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _choose(preferred: int | None, taken: set[int], claims: Claims) -> int:
    if preferred and preferred not in taken and is_free(preferred) and claims.take(preferred):
        return preferred
    # Below the ephemeral range: a client that retries a closed port of that range can connect to itself, and then the server
    # cannot listen on its port again.
    ceiling = _ephemeral_floor()
    for port in random.sample(range(_LOWEST, ceiling), 1000):
        if port not in taken and is_free(port) and claims.take(port):
            return port
    raise OSError(f"no free port between {_LOWEST} and {ceiling} on {LOOPBACK}")


def _ephemeral_floor() -> int:
    try:
        floor = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        floor = 32_768
    return floor if floor >= _LOWEST + 2000 else 32_768
