"""One event, delivered over every transport by real processes."""

from collections.abc import Callable

import pika
import psycopg
import pytest

from ops.config.apply import apply_file
from ops.settings import Settings
from support.deliveries import event, record
from support.net.post import Post, post_office
from support.net.wire import answers, wire
from support.waiting import wait_for

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
DISABLE = b"HTTP/1.1 400 x\r\nwebhook-delivery: disable\r\nContent-Length: 0\r\n\r\n"

CHECKS = {"form": "endpoint_transport_check", "target": "endpoint_target"}  # the second: only http has a URL


@pytest.fixture
def start_both(start) -> Callable[..., None]:
    """Starts a relay and a deliver process with these settings."""

    def start_both(**settings: str) -> None:
        for role in ("relay", "deliver"):
            start(role, **settings)

    return start_both


@pytest.fixture
def configure(database, tmp_path) -> Callable[[str], dict[str, int]]:
    """Applies a file with these endpoints; returns their ids by name."""

    def configure(endpoints: str) -> dict[str, int]:
        (tmp_path / "waxseal.yaml").write_text(f"tenants: [{{name: acme}}]\nendpoints:\n{endpoints}")
        apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=database.key))
        return dict(database.rows("SELECT name, id FROM endpoint"))

    return configure


def attempts(database) -> dict[str, tuple]:
    """The only attempt at each endpoint."""
    found = database.rows(
        "SELECT name, attempt.outcome, attempt.status, attempt.error FROM attempt"
        " JOIN delivery ON delivery.id = delivery_id JOIN endpoint ON endpoint.id = endpoint_id"
    )
    return {name: tuple(rest) for name, *rest in found}


def test_an_event_goes_out_over_every_transport(servers, database, engine, start_both, configure) -> None:
    with (
        pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection,
        wire(answers(OK)) as web,
        post_office(Post()) as post,
    ):
        channel = connection.channel()
        channel.exchange_declare("waxseal.events", "topic", durable=True)
        channel.queue_declare("all-of-acme", exclusive=True)
        channel.queue_bind("all-of-acme", "waxseal.events", "acme.#")
        mail = f"{{to: ops@b.example, from: shop@b.example, host: 127.0.0.1, port: {post.port}, security: none}}"
        ids = configure(
            f"  - {{tenant: acme, name: web, url: '{web.url()}', headers: {{X-Team: a}}}}\n"
            "  - {tenant: acme, name: bus, amqp: {}}\n"
            f"  - {{tenant: acme, name: mail, smtp: {mail}}}\n"
            f"  - {{tenant: acme, name: gone, smtp: {mail.replace('ops@', '550@')}}}\n"
            "  - {tenant: acme, name: lost, amqp: {routing_key: nobody.listens}}\n"
        )
        record(engine, [event("e-1", body=b'{"amount": 1.10}')], list(ids.values()))
        start_both()
        wait_for(lambda: len(attempts(database)) == 5, 60)

        method, properties, body = channel.basic_get("all-of-acme", auto_ack=True)

    assert {
        "web": ("delivered", 200, None),
        "bus": ("delivered", 200, None),
        "mail": ("delivered", 250, None),
        "gone": ("dead", 550, "refused"),
        "lost": ("retry", 312, "unroutable"),
    } == attempts(database)
    assert ("e-1", b'{"amount": 1.10}', "acme.order.paid") == (properties.message_id, body, method.routing_key)
    assert "\r\nx-team: a\r\n" in web.heads[0].lower()
    assert "e-1" == post.mails[0]["Webhook-Id"]
    assert [("refused", "mail")] == database.rows("SELECT reason, 'mail' FROM dead_letter WHERE endpoint_id = %s", ids["gone"])


def test_where_nothing_is_allowed_nothing_private_is_reached(database, engine, start_both, configure) -> None:
    with wire(answers(OK)) as web, post_office(Post()) as post:
        mail = f"{{to: ops@b.example, from: shop@b.example, host: localhost, port: {post.port}, security: none}}"
        ids = configure(
            f"  - {{tenant: acme, name: web, url: '{web.url()}'}}\n  - {{tenant: acme, name: mail, smtp: {mail}}}\n"
        )
        record(engine, [event("e-1")], list(ids.values()))
        start_both(allow_networks="")
        wait_for(lambda: len(attempts(database)) == 2, 60)

    assert {"web": ("retry", None, "refused_address"), "mail": ("retry", None, "refused_address")} == attempts(database)
    assert (0, 0) == (web.connections, len(post.sessions))


def test_an_endpoint_that_asks_for_it_is_disabled(database, engine, start_both, configure) -> None:
    with wire(answers(DISABLE)) as web:
        ids = configure(f"  - {{tenant: acme, name: web, url: '{web.url()}', max_in_flight: 1}}\n")
        record(engine, [event("e-1", "a"), event("e-2", "b")], list(ids.values()))
        start_both()
        wait_for(lambda: database.rows("SELECT state FROM endpoint") == [("disabled",)], 60)
        wait_for(lambda: database.rows("SELECT count(*) FROM delivery WHERE state IN ('dead', 'paused')") == [(2,)], 60)

    assert {"web": ("dead", 400, "status")} == attempts(database)
    ((reason,),) = database.rows("SELECT reason FROM endpoint")
    assert reason.startswith("it answered webhook-delivery: disable at ")
    assert [("disabled",)] == database.rows("SELECT reason FROM dead_letter")


def test_an_endpoint_of_a_transport_that_a_later_version_has_is_tried_again_and_keeps_nobody_else_waiting(
    database, engine, start_both, configure
) -> None:
    with wire(answers(OK)) as web:
        ids = configure(
            f"  - {{tenant: acme, name: web, url: '{web.url()}'}}\n  - {{tenant: acme, name: printer, url: '{web.url()}'}}\n"
        )
        database.rows("UPDATE endpoint SET transport = 'paper', url = NULL WHERE name = 'printer' RETURNING id")
        record(engine, [event("e-1")], list(ids.values()))
        start_both()
        wait_for(lambda: len(attempts(database)) == 2, 60)

    assert {"web": ("delivered", 200, None), "printer": ("retry", None, "transport")} == attempts(database)
    [(detail,)] = database.rows(
        "SELECT last_error FROM endpoint_health JOIN endpoint ON id = endpoint_id WHERE name = 'printer'"
    )
    assert "transport: this version does not know the transport paper: run the one that configured the endpoint" == detail


def test_the_database_keeps_to_the_form_of_a_transports_name(database, configure) -> None:
    configure("  - {tenant: acme, name: bus, amqp: {}}\n")

    for name, broken in ("", "form"), ("Paper", "form"), ("a b", "form"), ("x" * 21, "form"), ("http", "target"):
        with pytest.raises(psycopg.errors.CheckViolation, match=CHECKS[broken]):
            database.rows("UPDATE endpoint SET transport = %s RETURNING id", name)
