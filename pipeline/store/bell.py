"""The bell: who makes something due says so, with the COMMIT, and relays look at once, not at their next poll."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, text

# With the endpoints' ids, so that a relay need not survey all of them.
NOTIFY = text("SELECT pg_notify('waxseal_due', :endpoints)")

# On a connection that is kept for it, outside any transaction: what is said there is heard at once.
LISTEN = text("LISTEN waxseal_due")

ANY: Final = 0  # in place of an endpoint's id: something is due, somewhere
MOST_BYTES: Final = 7000  # of ids that are said one by one; Postgres allows 8,000


def ring(conn: Connection, endpoint_ids: Collection[int] = ()) -> None:
    """Says that something is due at these endpoints, or just anywhere."""
    said = ",".join(map(str, sorted(endpoint_ids)))
    conn.execute(NOTIFY, {"endpoints": said if len(said) <= MOST_BYTES else ""})


def listen(conn: Connection) -> None:
    """Subscribes `conn`, which must commit by itself."""
    conn.execute(LISTEN)


def heard(conn: Connection, seconds: float) -> set[int]:
    """Waits for the bell, `seconds` at most; at which endpoints it rang since the last time, `ANY` if nobody said at which."""
    driver = conn.connection.driver_connection
    assert driver is not None
    rung = driver.notifies(timeout=seconds, stop_after=1)
    return {int(each or ANY) for notice in rung for each in notice.payload.split(",")}
