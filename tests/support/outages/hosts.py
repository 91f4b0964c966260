"""Hosts in network namespaces of their own, far from their servers, on lines that lose packets and are cut."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ops.settings import environment
from support.outages.lines import FAR, address

SERVERS: Final = "10.77.0.1"  # the address of all servers, from every host and from their own

_TESTS: Final = Path(__file__).parents[2]

# Servers of ours listen on 127.0.0.1 only, and see from which host a connection comes.
_TO_SERVERS: Final = f"""
add table ip servers
add chain ip servers arriving {{ type nat hook prerouting priority -100; }}
add chain ip servers own {{ type nat hook output priority -100; }}
add rule ip servers arriving ip daddr {SERVERS} dnat to 127.0.0.1
add rule ip servers own ip daddr {SERVERS} dnat to 127.0.0.1
"""


class Host:
    """A network namespace and its line."""

    def __init__(self, name: str, number: int, namespace: str) -> None:
        self.name = name
        self.address = address(number)
        self.enter = ("nsenter", f"--net={namespace}")  # before a command that is to run there

    def lose(self, percent: int) -> None:
        """Has the line lose so many of a hundred packets each way from now on, at random; all of them if it is 100."""
        drop = f"numgen random mod 100 < {percent} drop" if percent < 100 else "drop"
        for enter, device in ((), self.name), (self.enter, FAR):
            _nft(
                f"""
                add table ip {device}
                delete table ip {device}
                add table ip {device}
                add chain ip {device} arriving {{ type filter hook prerouting priority -300; }}
                add rule ip {device} arriving iifname "{device}" {drop}
                """,
                enter,
            )


class Hosts:
    """The hosts by name, each with a line to the namespace of this process, for the time of `hosts`."""

    def __init__(self, names: Sequence[str], forwarder: "subprocess.Popen[str]") -> None:
        assert forwarder.stdin is not None
        assert forwarder.stdout is not None
        self._told = forwarder.stdin
        namespaces = json.loads(forwarder.stdout.readline())
        self.by_name = {name: Host(name, number, namespaces[name]) for number, name in enumerate(names, 1)}

    def delay(self, seconds: float) -> None:
        """Has each packet take so long, each way."""
        self._told.write(f"{seconds}\n")
        self._told.flush()

    def lose(self, percent: int) -> None:
        for host in self.by_name.values():
            host.lose(percent)


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[Hosts]:
    """Makes the hosts, from which the servers of this network namespace, an own one, are reached at `SERVERS`."""
    _run("ip", "addr", "add", f"{SERVERS}/32", "dev", "lo")
    _run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
    _nft(_TO_SERVERS)
    command = [sys.executable, "-m", "support.outages.lines", *names]
    told = {**environment(), "PYTHONPATH": str(_TESTS)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=told) as forwarder:
        yield Hosts(names, forwarder)
        assert forwarder.poll() is None


def _nft(script: str, enter: Sequence[str] = ()) -> None:
    subprocess.run([*enter, "nft", "-f", "-"], input=script, check=True, capture_output=True, text=True, timeout=20)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
