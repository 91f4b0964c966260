"""The bell: who makes something due says so, with the COMMIT, and relays look at once, not at their next poll."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, text

from pipeline.store.round_trip import Asked

# With the endpoints' ids, so that a relay need not survey all of them.
NOTIFY = text("SELECT pg_notify('waxseal_due', said) FROM unnest(CAST(:said AS text[])) AS said")

# On a connection that is kept for it, outside any transaction: what is said there is heard at once.
LISTEN = text("LISTEN waxseal_due")

ANY: Final = 0  # in place of an endpoint's id: something is due, somewhere
MOST_IDS: Final = 700  # in one notice: 7,700 bytes at most; Postgres allows 8,000
MOST_NOTICES: Final = 10  # of one ringing; to survey all endpoints costs less than to hear more


def ring(conn: Connection, endpoint_ids: Collection[int] = ()) -> None:
    """Says that something is due at these endpoints, or just anywhere."""
    conn.execute(*ringing(endpoint_ids))


def ringing(endpoint_ids: Collection[int]) -> Asked:
    """What `ring` says."""
    ids = sorted(endpoint_ids)
    said = [",".join(map(str, ids[at : at + MOST_IDS])) for at in range(0, len(ids), MOST_IDS)]
    return NOTIFY, {"said": said if 0 < len(said) <= MOST_NOTICES else [""]}


def listen(conn: Connection) -> None:
    """Subscribes `conn`, which must commit by itself."""
    conn.execute(LISTEN)


def heard(conn: Connection, seconds: float) -> set[int]:
    """Waits for the bell, `seconds` at most; at which endpoints it rang since the last time, `ANY` if nobody said at which."""
    driver = conn.connection.driver_connection
    assert driver is not None
    rung = driver.notifies(timeout=seconds, stop_after=1)
    return {int(each or ANY) for notice in rung for each in notice.payload.split(",")}
