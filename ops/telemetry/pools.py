"""The figures of the process's connection pools, together: a process may have one for long transactions, and one for short."""

from typing import Final

from ops.runtime.db import Engine, Pool
from ops.telemetry import table


class Pools:
    """Shows the pools that it was told of, from then on. Reads their state when the metrics are read."""

    def __init__(self) -> None:
        self._pools: list[Pool] = []

    def watch(self, engine: Engine) -> None:
        """Show the pool of `engine`, which must be one of `make_engine`."""
        pool = engine.pool
        assert isinstance(pool, Pool)
        pool.waited = table.POOL_WAIT_SECONDS.observe
        self._pools.append(pool)
        table.POOL_SIZE.set_function(lambda: sum(each.size() for each in self._pools))
        table.POOL_CONNECTIONS.labels("idle").set_function(lambda: sum(each.checkedin() for each in self._pools))
        table.POOL_CONNECTIONS.labels("checked_out").set_function(lambda: sum(each.checkedout() for each in self._pools))

    def forget(self, engine: Engine) -> None:
        """Show the pool of `engine` no more."""
        self._pools = [each for each in self._pools if each is not engine.pool]


POOLS: Final = Pools()
