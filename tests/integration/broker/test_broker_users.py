"""The pages' commands for broker users, their database roles, and their publisher, exactly as written."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pika
import psycopg
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from ops.servers.private import PrivateServers
from support.broker import rabbitmqctl, rabbitmqctl_in_turn
from support.pages import blocks, commands
from support.sending import SECRET
from support.waiting import wait_for
from workers.amqp.topology import IN, RECEIVED, declare


@pytest.fixture(scope="module")
def users(servers: PrivateServers, module_folder: Path) -> Iterator[None]:
    """Runs the pages' broker commands: adds users, then their rights; deletes users at the end."""
    asked = [list(words) for words in dict.fromkeys(tuple(words) for words in commands("rabbitmqctl"))]
    assert 11 == len(asked)
    first, last = (([one for one in asked if one[0] == name]) for name in ("add_user", "delete_user"))
    others = [one for one in asked if one not in first + last]
    with pika.BlockingConnection(pika.URLParameters(servers.amqp_url)) as connection:
        declare(connection.channel())  # RabbitMQ 4.3 knows no rights on an exchange that it does not have
    rabbitmqctl_in_turn(servers, [*first, *others], module_folder / "rabbitmqctl")
    yield
    for one in last:
        rabbitmqctl(servers, *one)


def url(servers: PrivateServers, user: str) -> str:
    return re.sub(r"//[^@]*@", f"//{user}:PASSWORD@", servers.amqp_url)


def publisher(servers: PrivateServers) -> str:
    """The ten-line publisher of the page on sources, with the test broker's address."""
    (found,) = blocks("python")
    return re.sub(r'"amqp://[^"]*"', lambda _: repr(url(servers, "acme-shop")), found.text)


@pytest.mark.usefixtures("users")
def test_the_publisher_of_the_pages_is_recorded_and_delivered_by_workers_with_the_rights_of_the_pages(
    servers, database, start, sink
) -> None:
    database.add_tenant("acme")
    database.add_source("orders", "amqp", users=["acme-shop"])
    database.add_source("others", "amqp", users=["acme-till"])
    database.add_endpoint("billing", sink.url("/200"), SECRET)
    for command in ("ingest", "relay", "deliver"):
        start(command, amqp_url=url(servers, "waxseal-worker"))
    script = publisher(servers)

    for text in (script, script.replace("acme.orders", "acme.others"), script.replace(', user_id="acme-shop"', "")):
        subprocess.run([sys.executable, "-c", text], check=True, timeout=30)
    wait_for(lambda: len(sink.ids()) == 1 and len(database.rows("SELECT FROM dead_letter")) == 2)

    ((stored,),) = database.rows("SELECT convert_from(attributes, 'UTF8') FROM content")
    said = json.loads(stored)
    assert ("order-7/paid", "order.paid", "order-7", "orders") == tuple(
        said[name] for name in ("id", "type", "subject", "source")
    )
    assert [("others", "wrong_user"), ("orders", "wrong_user")] == database.rows(
        "SELECT source, reason FROM dead_letter ORDER BY id"
    )


@pytest.mark.usefixtures("users")
def test_a_login_of_one_tenant_can_do_nothing_else(servers: PrivateServers) -> None:
    def refused(act: partial) -> int:
        with pika.BlockingConnection(pika.URLParameters(url(servers, "acme-shop"))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            with pytest.raises(ChannelClosedByBroker) as closed:
                act(channel)
            return int(closed.value.reply_code)

    publish = BlockingChannel.basic_publish
    acts = {
        "another tenant's source": (partial(publish, exchange=IN, routing_key="other.orders", body=b""), 403),
        "what looks like its own": (partial(publish, exchange=IN, routing_key="acmes.orders", body=b""), 403),
        "the receivers' exchange": (partial(publish, exchange=RECEIVED, routing_key="acme.orders", body=b""), 403),
        "the inbox itself": (partial(publish, exchange="", routing_key="waxseal.ingest", body=b""), 403),
        "the exchange before the inbox": (partial(publish, exchange="waxseal.inbox", routing_key="acme.x", body=b""), 403),
        "another user's name": (
            partial(
                publish,
                exchange=IN,
                routing_key="acme.orders",
                body=b"",
                properties=pika.BasicProperties(user_id="waxseal-worker"),
            ),
            406,
        ),
        "a queue": (lambda channel: channel.queue_declare("mine"), 403),
        "an exchange": (lambda channel: channel.exchange_declare("mine"), 403),
        "reading": (lambda channel: channel.basic_get("waxseal.ingest"), 403),
        "a binding": (lambda channel: channel.exchange_bind(IN, "amq.topic", "#"), 403),
    }

    found = {name: refused(act) for name, (act, _code) in acts.items()}

    assert {name: code for name, (_act, code) in acts.items()} == found


def test_the_user_that_takes_over_has_the_rights_of_the_one_before() -> None:
    rights = {one[3]: one[4:] for one in commands("rabbitmqctl") if one[0] == "set_permissions"}

    assert rights["waxseal-worker"] == rights["waxseal-worker-2"]


def test_the_roles_of_the_pages_log_in_with_the_rights_of_their_processes(database, servers: PrivateServers) -> None:
    replacing, making, others = (block.text for block in blocks("sql", "ops/docs/operating.md") if " ROLE " in block.text)
    logins = {
        "waxseal_worker_2": "waxseal_writer",
        "waxseal_eraser_login": "waxseal_eraser",
        "waxseal_verifier_login": "waxseal_verifier",
        "waxseal_sealer_login": "waxseal_sealer",
    }
    try:
        with psycopg.connect(database.url, autocommit=True) as owner:
            for block in (making, replacing, others):
                owner.execute(block)
        for login, role in logins.items():
            with psycopg.connect(database.url, user=login, password="PASSWORD") as process:
                found = process.execute("SELECT pg_has_role(%s, 'USAGE'), count(*) FROM entry", (role,)).fetchone()
                members = process.execute(
                    "SELECT array_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = current_user::regrole"
                ).fetchone()
            assert ((True, 0), ([role],)) == (found, members), login
        assert [] == database.rows("SELECT FROM pg_roles WHERE rolname = 'waxseal_worker'")
    finally:
        with psycopg.connect(database.url, autocommit=True) as owner:
            for login in ("waxseal_worker", *logins):
                owner.execute(f"DROP ROLE IF EXISTS {login}")
