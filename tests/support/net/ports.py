"""Ports for servers that tests start."""

from ops.servers.ports import Claims, choose_ports

_claims = Claims()  # held until the process ends, so that tests that run beside this one choose others


def free_port() -> int:
    """A port on the loopback address that nobody else takes before a server listens on it."""
    return choose_ports(["server"], {}, claims=_claims)["server"]
