"""A network namespace of this process's own, in which ways between loopback addresses are cut with nftables."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_TABLE: Final = "waxseal"


def own_network() -> str | None:
    """Gives this thread, and all that it starts from now on, a network of its own; says why not, if that cannot be."""
    if shutil.which("nft") is None or shutil.which("ip") is None:
        return "nft or ip is not installed"
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        return f"no network namespace can be made: {os.strerror(ctypes.get_errno())}"
    _run("ip", "link", "set", "lo", "up")
    try:
        with cut(["127.0.3.1"], ["127.0.3.2"]):
            pass
    except subprocess.CalledProcessError as error:
        return f"nothing can be cut: {error.stderr}"
    return None


@contextmanager
def cut(ones: Sequence[str], others: Sequence[str] = ("127.0.0.0/8",)) -> Iterator[None]:
    """Drops everything between these addresses, both ways, until the block ends."""
    mine, theirs = (", ".join(each) for each in (ones, others))
    _run("nft", "add", "table", "ip", _TABLE)
    _run("nft", f"add chain ip {_TABLE} cut {{ type filter hook output priority 0; }}")
    _run("nft", f"add rule ip {_TABLE} cut ip saddr {{ {mine} }} ip daddr {{ {theirs} }} drop")
    _run("nft", f"add rule ip {_TABLE} cut ip saddr {{ {theirs} }} ip daddr {{ {mine} }} drop")
    try:
        yield
    finally:
        _run("nft", "delete", "table", "ip", _TABLE)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
