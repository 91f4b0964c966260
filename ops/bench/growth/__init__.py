"""`bench growth`: what an event costs in a database that is filled by the route's own statements, at several sizes."""

from ops.bench.growth.rates import run

__all__ = ["run"]
