"""Deliveries do not wait for an endpoint that hangs or fails, nor behind retries of their own endpoint."""

import time
from collections.abc import Sequence

from sqlalchemy import Engine

from support.deliveries import event, record
from support.net.sink import Request, Sink
from support.sending import SECRET
from support.waiting import wait_for

WELL = 18  # endpoints that answer at once
ROUNDS = 20  # each plans one event for each of them
PAUSE = 0.08  # seconds between two rounds: 225 deliveries a second
BACKLOG = 300  # deliveries to each of the two failing endpoints
LEASED = 100  # most leased deliveries; the hanging endpoint alone could take them all
DEADLINE = 15.0  # seconds: the hanging endpoint's timeout, longer than all rounds take
STALL = 1.0  # seconds for which a shared machine may stall

RETRIES = 1000  # overdue
IN_BETWEEN = 300  # retries, claimed earlier, that may arrive between a new delivery's planning and its arrival


def paced(engine: Engine, sink: Sink, name: str, endpoints: Sequence[int], ill: Sequence[int] = ()) -> list[float]:
    """Plans rounds of deliveries for all the endpoints; returns the seconds until each was received, except by the `ill`."""
    planned = {}
    began = time.monotonic()
    for number in range(ROUNDS):
        time.sleep(max(0.0, began + number * PAUSE - time.monotonic()))
        planned[f"{name}-{number}"] = time.monotonic()
        record(engine, [event(f"{name}-{number}", f"s-{number}")], [*endpoints, *ill])

    def received() -> list[Request]:
        return [each for each in sink.requests if each.path.startswith("/200") and each.headers["webhook-id"] in planned]

    wait_for(lambda: len(received()) >= ROUNDS * len(endpoints))
    return sorted(each.at - planned[each.headers["webhook-id"]] for each in received())


def p95(seconds: Sequence[float]) -> float:
    return seconds[len(seconds) * 95 // 100]


def p50(seconds: Sequence[float]) -> float:
    return seconds[len(seconds) // 2]


def test_eighteen_endpoints_do_not_wait_for_one_that_hangs_and_one_that_fails(database, engine, sink, start, lateness) -> None:
    database.add_tenant()
    well = [database.add_endpoint(f"well-{n}", sink.url(f"/200/{n}"), SECRET) for n in range(WELL)]
    terms = {"timeout": DEADLINE, "retry": [1.0] * 50}
    ill = [database.add_endpoint(path, sink.url(f"/{path}"), SECRET, **terms) for path in ("hang", "500")]
    with database.connect() as conn:  # their breakers are forced closed, so they do not protect the others
        conn.execute("INSERT INTO endpoint_health (endpoint_id, forced) SELECT unnest(%s::int[]), true", (ill,))
    start("relay", max_leased=LEASED)
    start("deliver")
    record(engine, [event("warm")], well)
    wait_for(lambda: len(sink.requests) == WELL)

    alone = paced(engine, sink, "alone", well)
    record(engine, [event(f"backlog-{n}", f"s-{n}") for n in range(BACKLOG)], ill)
    wait_for(lambda: {"/hang", "/500"} <= {each.path for each in sink.requests})
    beside = paced(engine, sink, "beside", well, ill)

    sink.release()

    assert p50(beside) <= 4 * p50(alone) + 0.1 + lateness()
    assert p95(beside) <= max(5 * p95(alone), STALL) + lateness()
    assert beside[-1] < DEADLINE


def test_new_deliveries_of_an_endpoint_do_not_wait_behind_its_own_retries(database, engine, sink, start) -> None:
    database.add_tenant()
    endpoint = database.add_endpoint("slow", sink.url("/soon"), SECRET, max_in_flight=5)
    record(engine, [event(f"old-{n}", f"s-{n}") for n in range(RETRIES)], [endpoint])
    with database.connect() as conn:
        conn.execute("UPDATE delivery SET attempts = 1, next_attempt_at = now() - interval '1 h'")
    for worker in ("relay", "deliver"):
        start(worker)
    wait_for(lambda: sink.requests)

    before = []
    for number in range(3):
        record(engine, [event(f"new-{number}")], [endpoint])
        before.append(len(sink.requests))
        wait_for(lambda number=number: f"new-{number}" in sink.ids())
    order = [each.headers["webhook-id"] for each in sink.requests]
    assert len(order) < RETRIES, "there were retries left to wait for"
    assert max(order.index(f"new-{number}") - planned for number, planned in enumerate(before)) <= IN_BETWEEN
