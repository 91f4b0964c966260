"""Counts what a connection sends to Postgres and waits for."""

from collections.abc import Generator
from typing import Any

from ops.runtime.driver import db_deadline


def counting(trips: list[str]) -> type[db_deadline.Connection]:
    """A class of connections that add to `trips` for each exchange with the server that waits for an answer."""

    class Counted(db_deadline.Connection):
        def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
            def counted() -> Generator[Any, Any, Any]:
                try:
                    wanted = next(gen)
                    trips.append("trip")
                    while True:
                        wanted = gen.send((yield wanted))
                except StopIteration as end:
                    return end.value

            return super().wait(counted(), *args, **options)

    return Counted
