"""Notifications: a transaction that makes deliveries due notifies the relays at its COMMIT, so they need not wait to poll."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, text

from pipeline.store.round_trip import Query

# With the endpoints' ids, so that a relay need not survey all of them.
NOTIFY = text("SELECT pg_notify('waxseal_due', said) FROM unnest(CAST(:said AS text[])) AS said")

# On a dedicated connection, outside any transaction, which receives notifications at once.
LISTEN = text("LISTEN waxseal_due")

ANY: Final = 0  # in place of an endpoint's id: something is due at an unknown endpoint
MOST_IDS: Final = 700  # in one notice: 7,700 bytes at most; Postgres allows 8,000
MOST_NOTICES: Final = 10  # in one call; beyond that, a survey of all endpoints costs less


def send(conn: Connection, endpoint_ids: Collection[int] = ()) -> None:
    """Notifies the relays, at COMMIT, that deliveries of these endpoints are due; without ids, of unknown ones."""
    conn.execute(*notify_query(endpoint_ids))


def notify_query(endpoint_ids: Collection[int]) -> Query:
    """The query of `send`, for one round trip with others."""
    ids = sorted(endpoint_ids)
    said = [",".join(map(str, ids[at : at + MOST_IDS])) for at in range(0, len(ids), MOST_IDS)]
    return NOTIFY, {"said": said if 0 < len(said) <= MOST_NOTICES else [""]}


def listen(conn: Connection) -> None:
    """Subscribes `conn`, which must be in autocommit, to the notifications; once more changes nothing."""
    conn.execute(LISTEN)


def received(conn: Connection, seconds: float) -> set[int]:
    """The endpoints notified since the last call, `ANY` for an unknown one. Waits for the first notice, at most `seconds`."""
    driver = conn.connection.driver_connection
    assert driver is not None
    notices = driver.notifies(timeout=seconds, stop_after=1)
    return {int(each or ANY) for notice in notices for each in notice.payload.split(",")}
