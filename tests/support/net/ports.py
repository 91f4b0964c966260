"""Ports for servers that tests start."""

from ops.servers.ports import Claims, choose_ports

_claims = Claims()  # held until the process ends, so that tests that run beside this one choose others
_given: list[int] = []  # what is claimed already could be chosen again: a claim keeps other processes off only


def free_port() -> int:
    """A port on the loopback address that nobody else takes before a server listens on it. No two calls give the same."""
    _given.append(choose_ports(["server"], {}, avoid=_given, claims=_claims)["server"])
    return _given[-1]
