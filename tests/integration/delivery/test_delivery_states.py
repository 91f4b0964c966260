"""Postgres refuses a delivery whose columns contradict its state."""

from itertools import product

import psycopg
import pytest

from support.deliveries import event, record

STATES = ("pending", "leased", "delivered", "dead", "paused", "discarded")

#: Which columns each state fills: next attempt, lease, end of the lease, time of settling.
HAS = {
    "pending": (True, False, False, False),
    "leased": (False, True, True, False),
    "delivered": (False, False, False, True),
    "dead": (False, False, False, True),
    "paused": (False, False, False, False),
    "discarded": (False, False, False, True),
}
WAITS = ("pending", False, False, False, False)  # for its turn, at an ordered endpoint

WRITE = """
    UPDATE delivery SET state = %s, ordered = %s, next_attempt_at = CASE WHEN %s THEN now() END,
                        lease = CASE WHEN %s THEN gen_random_uuid() END, lease_until = CASE WHEN %s THEN now() END,
                        settled_at = CASE WHEN %s THEN now() END"""


def accepted(conn: psycopg.Connection, state: str, ordered: bool, columns: tuple[bool, ...]) -> bool:
    try:
        conn.execute(WRITE, (state, ordered, *columns))
    except psycopg.errors.CheckViolation:
        return False
    return True


@pytest.mark.parametrize("ordered", [False, True])
def test_every_state_has_the_columns_that_prove_it_and_no_others(ordered, database, engine) -> None:
    record(engine, [event("e-1")])
    expected = {(state, *columns) for state, columns in HAS.items()} | ({WAITS} if ordered else set())

    with database.connect() as conn:
        found = {
            (state, *columns)
            for state in STATES
            for columns in product((False, True), repeat=4)
            if accepted(conn, state, ordered, columns)
        }

    assert expected == found


@pytest.mark.parametrize(
    "change", ["state = 'lost'", "attempts = -1", "schedule_from = 1", "state = NULL", "attempts = 2, schedule_from = 3"]
)
def test_there_is_no_other_state_and_no_schedule_from_the_future(change, database, engine) -> None:
    record(engine, [event("e-1")])

    with database.connect() as conn, pytest.raises(psycopg.errors.IntegrityError):
        conn.execute(f"UPDATE delivery SET {change}")
