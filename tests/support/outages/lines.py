"""Hosts on long lines: a network namespace each, whose packets to and from the namespace of whoever starts this come late.

Runs as a process of its own, which holds the namespaces as long as it lives: `python -m support.outages.lines NAME...` prints
the paths of the namespaces as JSON, and reads from its standard input how many seconds a packet takes each way. It forwards
whole packets between two tun devices, so that one that is dropped on the way is missed and sent again, as on a real line.
"""

import ctypes
import fcntl
import heapq
import json
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

FAR: Final = "line"  # the device in a host; in the namespace of the servers it has the host's name

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_TUN_WITHOUT_HEADER: Final = 0x1001
_LARGEST: Final = 65_536


def address(number: int, *, far: bool = True) -> str:
    """Of the host of this number, from 1 on; or of the near end of its line."""
    return f"10.77.{number}.{2 if far else 1}"


def _tun(name: str, own: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN_WITHOUT_HEADER))
    for command in (f"addr add {own}/30 dev {name}", f"link set {name} up"):
        _ip(command)
    return device


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _enter(namespace: int | None) -> None:
    """A namespace by its file, or a new one."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.unshare(_CLONE_NEWNET) if namespace is None else libc.setns(namespace, _CLONE_NEWNET)
    if done != 0:
        raise OSError(ctypes.get_errno(), "the network namespace cannot be changed")


def _made(names: Sequence[str]) -> tuple[dict[str, str], dict[int, int]]:
    """The paths of the hosts' namespaces, and for each device the one at the other end."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    paths, ends = {}, {}
    for number, name in enumerate(names, 1):
        near = _tun(name, address(number, far=False))
        _enter(None)
        far = _tun(FAR, address(number))
        _ip("link set lo up")
        _ip(f"route add default via {address(number, far=False)}")
        paths[name] = f"/proc/{os.getpid()}/fd/{os.open('/proc/self/ns/net', os.O_RDONLY)}"
        _enter(here)
        ends |= {near: far, far: near}
    return paths, ends


def _forward(ends: dict[int, int]) -> None:
    """Until the standard input ends."""
    underway: list[tuple[float, int, int, bytes]] = []  # when it arrives, its number, where, and the packet
    number, delay = 0, 0.0
    with selectors.DefaultSelector() as ready:
        for device in (0, *ends):
            ready.register(device, selectors.EVENT_READ)
        while True:
            wait = max(0.0, underway[0][0] - time.monotonic()) if underway else None
            for key, _ in ready.select(wait):
                if key.fd == 0:
                    told = os.read(0, 100)
                    if not told:
                        return
                    delay = float(told.split()[-1])
                    continue
                with suppress(BlockingIOError):
                    while True:
                        packet = os.read(key.fd, _LARGEST)
                        number += 1
                        heapq.heappush(underway, (time.monotonic() + delay, number, ends[key.fd], packet))
            while underway and underway[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(underway)
                with suppress(OSError):  # the queue is full: a packet less, as on any line
                    os.write(device, packet)


if __name__ == "__main__":
    made, joined = _made(sys.argv[1:])
    sys.stdout.write(json.dumps(made) + "\n")
    sys.stdout.flush()
    _forward(joined)
