"""`bench distance`: processes that are far from their servers, over lines that forward what goes in later."""

from ops.bench.distance.delays import run

__all__ = ["run"]
