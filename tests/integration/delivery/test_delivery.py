"""The results of deliveries to a real endpoint: each path of the sink is one way to answer."""

import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import text
from standardwebhooks import Webhook

from ops.runtime.db import transaction
from ops.telemetry import table
from pipeline.store.config import catalog
from pipeline.store.deliveries import deliveries
from support.blobs import NO_BLOBS
from support.deliveries import claimed, event, in_message, record
from support.net.sink import Sink
from support.sending import SECRET
from support.sessions import away
from support.waiting import wait_for
from workers.delivery import body_quotas
from workers.delivery.store import DeliveryStore
from workers.delivery.worker import PATIENCE, DeliveryLoop
from workers.net.terms import Terms

Deliver = Callable[..., None]


@pytest.fixture
def deliver(engine, delivery_loop) -> Deliver:
    """Claims everything due and hands it over in one message; returns when it is settled, unless told not to wait."""

    def deliver(lease_for: float = 90.0, now: datetime | None = None, wait: bool = True) -> None:
        now = now or datetime.now(UTC)
        lease, claims = claimed(engine, 1000, now, timedelta(seconds=lease_for))
        until = time.time() + lease_for
        delivery_loop.deliver(lease.hex, until, in_message(claims))
        if wait:
            wait_for(lambda: not delivery_loop.busy and not held(engine, lease))

    return deliver


def held(engine, lease: UUID) -> int:
    """How many deliveries are still under `lease`; the loop may not have started on them yet."""
    with transaction(engine) as conn:
        return conn.execute(text("SELECT count(*) FROM delivery WHERE lease = :lease"), {"lease": lease}).scalar_one()


def state(database) -> tuple:
    """State, attempts and error of the only delivery."""
    (row,) = database.rows("SELECT state, attempts, error FROM delivery")
    return row


def outcome(database) -> tuple:
    """The outcome of the only attempt."""
    (row,) = database.rows("SELECT outcome, status, error FROM attempt")
    return row


def test_an_event_arrives_signed_with_its_body_and_attributes(database, engine, sink, endpoint, deliver) -> None:
    endpoint("/200/thanks")
    record(engine, [event("e-1", "order 1", b'{"amount": 1.10}')])

    deliver()

    (request,) = sink.requests
    assert b'{"amount": 1.10}' == request.body
    Webhook(SECRET).verify(request.body, request.headers)
    assert ("e-1", "order%201", "0", "application/json") == tuple(
        request.headers[name] for name in ("webhook-id", "ce-subject", "ce-chainseq", "content-type")
    )
    assert not {"cookie", "accept-encoding", "accept", "transfer-encoding"} & set(request.headers)
    assert ("delivered", 1, None) == state(database)
    assert [("delivered", 200, None, b"thanks")] == database.rows("SELECT outcome, status, error, response FROM attempt")


def test_whatever_is_not_a_whole_2xx_is_tried_again(database, engine, endpoint, deliver) -> None:
    expected = {
        "/500": (500, "status"),
        "/404": (404, "status"),
        "/100": (None, "timeout"),
        "/elsewhere": (302, "redirect"),
        "/hang": (None, "timeout"),
        "/slow_body": (200, "timeout"),
        "/cut_body": (200, "reset"),
        "/reset": (None, "reset"),
        "/closed": (None, "reset"),
        "/garbage": (None, "protocol"),
    }
    ids = {endpoint(path, timeout=1.0 if error == "timeout" else 30.0): path for path, (_, error) in expected.items()}
    record(engine, [event("e-1")], list(ids))

    deliver()

    found = database.rows(
        "SELECT endpoint_id, attempt.status, attempt.error, state, attempts,"
        " starts_with(delivery.error, attempt.error || ': '),"
        " next_attempt_at - now() <= '6 s' AND next_attempt_at - started_at >= '3 s'"
        " FROM attempt JOIN delivery ON delivery_id = id WHERE outcome = 'retry'"
    )
    assert {path: (*answer, "pending", 1, True, True) for path, answer in expected.items()} == {
        ids[id]: tuple(row) for id, *row in found
    }


def test_an_endpoint_that_cannot_be_reached_is_named_for_what_it_is(database, engine, deliver) -> None:
    database.add_tenant()
    expected = {"http://127.0.0.1:1/": "connect", "http://nowhere.invalid/": "dns", "http://127.0.0.1:99999/": "url"}
    ids = {database.add_endpoint(f"away-{n}", url, SECRET): url for n, url in enumerate(expected)}
    record(engine, [event("e-1")], list(ids))

    deliver()

    found = database.rows(
        "SELECT endpoint_id, attempt.error FROM attempt JOIN delivery ON delivery_id = id WHERE status IS NULL"
    )
    assert expected == {ids[id]: error for id, error in found}


@pytest.fixture
def certificate(tmp_path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sink")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
    pem = serialization.Encoding.PEM
    path = tmp_path / "sink.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(pem)
    )
    return path


@pytest.mark.parametrize(("trusted", "expected"), [(True, ("delivered", 200, None)), (False, ("retry", None, "tls"))])
def test_a_certificate_must_be_one_that_the_system_trusts(
    database, engine, request, certificate, monkeypatch, trusted, expected
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    sink = Sink()
    sink.start(context)
    request.addfinalizer(sink.stop)
    database.add_tenant()
    database.add_endpoint("secure", sink.url("/200").replace("http:", "https:"), SECRET)
    record(engine, [event("e-1")])

    request.getfixturevalue("deliver")()

    assert expected == outcome(database)


def test_a_redirect_is_not_followed_and_a_cookie_not_kept(engine, sink, endpoint, deliver) -> None:
    ids = [endpoint("/elsewhere"), endpoint("/cookie")]
    record(engine, [event("e-1")], ids)
    deliver()
    record(engine, [event("e-2")], ids)
    deliver()

    assert ["/cookie", "/cookie", "/elsewhere", "/elsewhere"] == sorted(request.path for request in sink.requests)
    assert all("cookie" not in request.headers for request in sink.requests)


def test_410_disables_the_endpoint_and_keeps_what_it_still_misses(database, engine, sink, endpoint, deliver) -> None:
    endpoint("/410", max_in_flight=1)
    record(engine, [event(f"e-{n}") for n in range(5)])

    deliver()

    assert 1 == len(sink.requests)
    assert [("dead", 1), ("paused", 4)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1 ORDER BY 1")
    assert [("disabled",)] == database.rows("SELECT state FROM endpoint")
    assert [("deliver", "gone", "e-0")] == database.rows("SELECT stage, reason, event_id FROM dead_letter")


def test_what_a_removed_endpoint_missed_is_discarded_unsent(database, engine, sink, endpoint, watch, delivery_loop) -> None:
    endpoint("/200")
    record(engine, [event("e-1")])
    lease, [claim] = claimed(engine)
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'removed'")
    wait_for(lambda: ["removed"] == [each.state for each in watch.current.endpoints.values()])

    delivery_loop.deliver(lease.hex, time.time() + 90, in_message([claim]))

    assert ("discarded", 0, "the endpoint was removed") == state(database)
    assert [] == sink.requests


@pytest.mark.parametrize("believed", ["removed", "disabled"])
def test_a_process_that_does_not_know_yet_that_an_endpoint_is_back_gives_nothing_up(
    database, engine, sink, endpoint, believed
) -> None:
    endpoint("/200")
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = %s, reason = %s", (believed, "why" if believed == "disabled" else None))
    with transaction(engine) as conn:
        old = catalog.load(conn, database.vault.decrypt)
    with database.connect() as owner:
        owner.execute("UPDATE endpoint SET state = 'active', reason = NULL")
    watch = SimpleNamespace(current=old)
    loop = DeliveryLoop(DeliveryStore(engine, 90.0), watch, Terms("waxseal/test"), NO_BLOBS)  # type: ignore[arg-type]
    loop.open(lambda: None)
    record(engine, [event("e-1")], now=datetime.now(UTC) - timedelta(hours=1))
    lease, claims = claimed(engine)

    loop.deliver(lease.hex, time.time() + 90, in_message(claims))
    loop.close(0.2)

    assert [("pending", True)] == database.rows("SELECT state, next_attempt_at < now() + interval '2 seconds' FROM delivery")
    assert [] == sink.requests


def test_what_was_erased_is_discarded_unsent(database, engine, sink, endpoint, deliver) -> None:
    endpoint("/200")
    record(engine, [event("e-1")])
    with database.connect() as owner:
        owner.execute("DELETE FROM content")
    cancelled = table.DELIVERIES.labels("http", "cancelled")
    before = cancelled._value.get()

    deliver()

    assert ("discarded", 0, "the content was erased") == state(database)
    assert before + 1 == cancelled._value.get()
    assert [] == sink.requests


@pytest.mark.parametrize(("path", "seconds"), [("/busy", 120), ("/busy_until", 300)], ids=["seconds", "date"])
def test_retry_after_puts_off_the_next_try(database, engine, endpoint, deliver, path, seconds) -> None:
    endpoint(path)
    record(engine, [event("e-1")])

    deliver()

    [(at_least, at_most)] = database.rows(
        "SELECT extract(epoch FROM next_attempt_at - started_at)::float, extract(epoch FROM next_attempt_at - now())::float"
        " FROM delivery JOIN attempt ON delivery_id = id"
    )
    assert seconds - 2 <= at_least
    assert at_most <= seconds * 1.1


def test_the_last_try_makes_a_dead_letter(database, engine, sink, endpoint, deliver) -> None:
    endpoint("/500/no", retry=[0.05])
    record(engine, [event("e-1")])

    deliver()
    time.sleep(0.1)
    deliver()

    assert ("dead", 2, "status: answered 500") == state(database)
    assert [("deliver", "exhausted", 2)] == database.rows("SELECT stage, reason, attempts FROM dead_letter")
    assert [(1, b"no"), (2, b"no")] == database.rows("SELECT n, response FROM attempt ORDER BY n")
    first, second = sink.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "e-1"
    Webhook(SECRET).verify(second.body, second.headers)


def test_an_endless_answer_is_read_for_a_while_and_recorded_in_part(database, engine, endpoint, deliver) -> None:
    endpoint("/endless")
    record(engine, [event("e-1")])

    deliver()

    assert ("delivered", 200, None) == outcome(database)
    assert [(4096,)] == database.rows("SELECT octet_length(response) FROM attempt")


@pytest.mark.parametrize(("path", "connections"), [("/200", 1), ("/once_closed", 3)])
def test_a_connection_is_kept_and_one_that_was_closed_is_replaced(
    database, engine, sink, endpoint, deliver, path, connections
) -> None:
    endpoint(path)
    for n in range(3):
        record(engine, [event(f"e-{n}")])
        deliver()
        time.sleep(0.05)

    assert [("delivered", 3)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1")
    assert connections == len({request.connection for request in sink.requests})


def test_no_more_than_its_share_is_sent_to_an_endpoint_at_once(database, engine, sink, endpoint, deliver) -> None:
    endpoint("/hang", max_in_flight=3)
    record(engine, [event(f"e-{n}") for n in range(10)])

    deliver(wait=False)
    wait_for(lambda: len(sink.requests) >= 3)
    time.sleep(0.3)  # for a fourth
    at_once = len(sink.requests)
    sink.release()

    assert 3 == at_once
    wait_for(lambda: [("delivered", 10)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))


def test_an_endpoint_that_hangs_holds_the_actor_for_a_moment_only_and_no_other_endpoint(
    database, engine, sink, endpoint, deliver, lateness
) -> None:
    hanging, well = endpoint("/hang", timeout=15), endpoint("/200")
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(30)], [hanging, well])

    began = time.monotonic()
    deliver(wait=False)
    took = time.monotonic() - began

    assert took < PATIENCE + 1 + lateness()
    wait_for(
        lambda: (
            [("delivered", 30)] == database.rows(f"SELECT state, count(*) FROM delivery WHERE endpoint_id = {well} GROUP BY 1")
        )
    )
    assert [("leased", 30)] == database.rows(f"SELECT state, count(*) FROM delivery WHERE endpoint_id = {hanging} GROUP BY 1")
    sink.release()
    wait_for(lambda: [("delivered", 60)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1"))


def test_what_cannot_begin_before_its_lease_is_nearly_over_is_handed_back_uncounted(
    database, engine, sink, endpoint, deliver
) -> None:
    endpoint("/hang", max_in_flight=1, timeout=2)
    record(engine, [event("e-1", "a"), event("e-2", "b")])

    deliver(lease_for=3.0)

    assert 1 == len(sink.requests)
    assert [("pending", 0), ("pending", 1)] == database.rows("SELECT state, attempts FROM delivery ORDER BY attempts")


def test_a_repeated_message_does_not_send_twice(database, engine, sink, endpoint, delivery_loop) -> None:
    endpoint("/hang")
    record(engine, [event("e-1")])
    lease, [claim] = claimed(engine)
    message = (lease.hex, time.time() + 90, in_message([claim]))

    delivery_loop.deliver(*message)
    delivery_loop.deliver(*message)
    sink.release()
    wait_for(lambda: state(database)[0] == "delivered")
    delivery_loop.deliver(*message)

    assert {"e-1": 1} == sink.ids()
    assert ("delivered", 1, None) == state(database)


def test_a_message_that_outlived_its_lease_is_harmless(database, engine, sink, endpoint, delivery_loop, deliver) -> None:
    endpoint("/200")
    record(engine, [event("e-1")])
    old, [claim] = claimed(engine)
    with transaction(engine) as conn:
        deliveries.release(conn, [(claim.id, old)], datetime.now(UTC))
    claimed(engine)

    delivery_loop.deliver(old.hex, time.time() - 1, in_message([claim]))
    delivery_loop.deliver(old.hex, time.time() + 90, in_message([claim]))

    assert [] == sink.requests
    assert "leased" == state(database)[0]


def test_an_endpoint_that_was_made_a_moment_ago_is_waited_for(database, engine, sink, endpoint, delivery_loop, deliver) -> None:
    time.sleep(0.6)
    endpoint("/200")
    record(engine, [event("e-1")])

    deliver()

    assert "delivered" == state(database)[0]


def test_large_bodies_arrive_a_few_at_a_time(database, engine, sink, endpoint, deliver) -> None:
    endpoint("/200", max_in_flight=100)
    body = bytes(range(256)) * 4096  # 1 MiB
    record(engine, [event(f"e-{n}", f"s-{n}", body) for n in range(50)])

    deliver()

    assert [("delivered", 50)] == database.rows("SELECT state, count(*) FROM delivery GROUP BY 1")
    assert {body} == {request.body for request in sink.requests}


def test_a_database_that_is_away_for_a_moment_costs_no_settlement(servers, database, engine, sink, endpoint, deliver) -> None:
    endpoint("/hang")
    record(engine, [event("e-1")])
    deliver(wait=False)
    wait_for(lambda: sink.requests)

    with away(servers, database):
        sink.release()
        time.sleep(0.5)

    wait_for(lambda: state(database)[0] == "delivered")
    assert {"e-1": 1} == sink.ids()


def test_closing_finishes_what_is_being_sent_and_hands_back_the_rest(
    database, engine, sink, endpoint, deliver, delivery_loop
) -> None:
    endpoint("/hang", max_in_flight=2)
    record(engine, [event(f"e-{n}", f"s-{n}") for n in range(5)])
    deliver(wait=False)
    wait_for(lambda: len(sink.requests) == 2)

    threading.Timer(0.3, sink.release).start()
    delivery_loop.close(30.0)

    assert [("delivered", 1, 2), ("pending", 0, 3)] == database.rows(
        "SELECT state, attempts, count(*) FROM delivery GROUP BY 1, 2 ORDER BY 1"
    )
    assert 2 == len(sink.requests)


def test_closing_hands_back_what_hangs_for_too_long(database, engine, sink, endpoint, deliver, delivery_loop) -> None:
    endpoint("/hang")
    record(engine, [event("e-1")])
    deliver(wait=False)

    delivery_loop.close(0.1)

    assert ("pending", 0, None) == state(database)


def test_small_bodies_do_not_wait_for_memory_that_hanging_endpoints_hold_with_larger_ones(
    engine, sink, endpoint, deliver, monkeypatch
) -> None:
    monkeypatch.setattr(body_quotas, "MAX_BYTES", 2 * 1024 * 1024)
    hanging = [endpoint(f"/hang/{n}", timeout=20) for n in range(3)]
    well = endpoint("/200")
    record(engine, [event(f"e-{n}", f"s-{n}", b"x" * 100_000) for n in range(20)], hanging)
    deliver(wait=False)
    wait_for(lambda: len(sink.requests) == 10)  # as many as MAX_BYTES allows

    record(engine, [event("small")], [well])
    deliver(wait=False)

    wait_for(lambda: 1 == sink.ids()["small"], 15)  # the others hang for 20 s
    sink.release()
