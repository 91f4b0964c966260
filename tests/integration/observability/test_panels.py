"""The dashboards against a running system with its troubles: every query of theirs returns data from a real Prometheus."""

import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pika
import pytest
from sqlalchemy import make_url

from ops.config.apply import apply_file
from ops.servers.private import PrivateServers
from ops.settings import Settings
from support.cli import Cli
from support.mail.api import serving
from support.mail.dovecot import mail
from support.mail.gmail import BACKEND_ERROR, Gmail
from support.mail.imap_script import scripted
from support.net.ports import free_port
from support.net.sink import Sink
from support.queues import put
from support.telemetry.dashboards import DASHBOARDS, PanelQuery, expanded, panel_queries
from support.telemetry.grafana import Prometheus, all_chosen, choices, chosen
from support.telemetry.observers import exporting, supervising, watching
from workers.amqp.topology import UNROUTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROLES = (
    *("ingress", "ingest", "relay", "deliver", "mail-pull", "mail-idle"),
    *("sequencer", "sealer", "eraser", "verifier", "console"),
)
QUERIES = panel_queries()
A_SMALL_ONE = "SELECT chain_id, seq FROM content WHERE body = %s LIMIT 1"
NOWHERE = "ARRAY[gen_random_uuid()], '{0}', '{1}', 1, extract(epoch FROM now()) * 1000000"  # an entry that is not in the ledger
EVENTS = 14  # enough for the breaker of an endpoint that fails


@dataclass
class Outside:
    """Endpoints, a provider of mail, and the port of an IMAP server that tells of new mail."""

    sink: Sink
    gmail: Gmail
    watched: int


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    empty = b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 1] x\r\n"
    idles = {rb"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE\r\n", rb"IDLE": b"+ idling\r\n", rb"EXAMINE": empty}
    sink = Sink()
    sink.start()
    with serving(Gmail()) as gmail, scripted(idles) as (mailbox, _):
        yield Outside(sink, gmail, mailbox.port)
    sink.stop()


def configure(outside: Outside, settings: Settings, path: Path) -> None:
    sink, gmail = outside.sink, outside.gmail
    imap = "kind: imap, host: 127.0.0.1, tls: false, username: us, password: s3cret"
    path.write_text(f"""
tenants: [{{name: acme, retention: 1d}}]
sources:
  - {{tenant: acme, name: up, kind: amqp}}
  - {{tenant: acme, name: hooks, kind: token, secrets: [s3cret]}}
endpoints:
  - {{tenant: acme, name: takes, url: "{sink.url("/200")}"}}
  - {{tenant: acme, name: fails, url: "{sink.url("/500")}"}}
  - {{tenant: acme, name: ends, url: "{sink.url("/410")}"}}
  - {{tenant: acme, name: hangs, url: "{sink.url("/hang")}", filter: {{exact: {{source: hooks}}}}}}
mailboxes:
  - {{tenant: acme, name: refused, {imap}, port: 1}}
  - {{tenant: acme, name: watched, {imap}, port: {outside.watched}, poll: 1s}}
  - {{tenant: acme, name: letters, kind: gmail, username: u@x.org, api_url: "{gmail.url}", poll: 1s,
     oauth: {{token_url: "{gmail.token_url}", client_id: app, client_secret: shh, refresh_token: refresh-0}}}}
""")
    apply_file(path, settings)


@pytest.fixture(scope="module")
def exporter(shared_database, tmp_path_factory) -> Iterator[int]:
    """The port of Postgres's exporter, which has the rights that docker-compose.yml gives it. One table has dead rows."""
    shared_database.run("CREATE ROLE test_monitor LOGIN PASSWORD 'monitor' IN ROLE pg_monitor")
    shared_database.run("CREATE TABLE large WITH (autovacuum_enabled = off) AS SELECT generate_series(1, 2000) AS n")
    shared_database.run("DELETE FROM large WHERE n <= 100")
    shared_database.run("SELECT pg_stat_force_next_flush()")
    url = make_url(shared_database.url).set(username="test_monitor", password="monitor")
    with exporting(url.render_as_string(hide_password=False), tmp_path_factory.mktemp("exporter")) as port:
        yield port
    shared_database.run("DROP ROLE test_monitor")


@pytest.fixture(scope="module")
def troubled(
    servers: PrivateServers, shared_database, shared_start, exporter: int, outside: Outside, tmp_path_factory
) -> Iterator[Prometheus]:
    """Watches a system under a load with all its troubles, of which the last is that ingest and mail-pull are away."""
    folder = tmp_path_factory.mktemp("troubled")
    settings = {"blobs": str(folder / "blobs"), "allow_networks": "127.0.0.0/8"}
    configure(
        outside, Settings(database_url=shared_database.url, keys=shared_database.key, **settings), folder / "waxseal.yaml"
    )
    cli = Cli(shared_database, servers.amqp_url, **settings).owner
    ports = {role: free_port() for role in (*ROLES, "supervisor")}
    with (
        watching(ports, {"postgres": exporter}, folder) as prometheus,
        supervising(folder, ports["supervisor"]) as supervised,
    ):
        shared_database.run("INSERT INTO retention_run (ran_at, erased, more) VALUES (now() - interval '30 days', 0, false)")
        started = {role: shared_start(role, **settings, **others(role, ports, folder, shared_database)) for role in ROLES}
        prometheus.until(f'count(up{{job="waxseal"}} == 1) == {len(ports)} and on () count(waxseal_collector_up == 1) == 3')
        ready = datetime.now(UTC)
        os.kill(supervised.pid, signal.SIGKILL)
        send(servers.amqp_url, prometheus)
        cli.output("verify")
        cli.output("verify", "--new")
        shared_database.run(
            f"INSERT INTO log_pending (tenant, chain_ids, firsts, counts, entries, at) VALUES ('acme', {NOWHERE})"
        )
        cli.output("dead", "discard", "--reason", "unknown_source", "--yes", "--by", "kim")
        # The collector counts decisions of 90 s ago, when all of them are committed.
        shared_database.run("UPDATE dead_letter SET decided_at = %s WHERE state = 'discarded'", ready - timedelta(seconds=85))
        shared_database.run(f"UPDATE content SET body = 'forged' WHERE (chain_id, seq) = ({A_SMALL_ONE})", b"x" * 10)
        cli.output("verify", code=1)
        post(ports["ingress"], "s3cret")
        with pytest.raises(HTTPError):
            post(ports["ingress"], "other")
        lose_consent(outside.gmail, prometheus)
        for role in ("ingest", "mail-pull"):
            started[role].terminate()
            started[role].wait(30)
        post(ports["ingress"], "s3cret")
        yield prometheus


def others(role: str, ports: Mapping[str, int], folder: Path, database: Any) -> dict[str, object]:
    """The settings of a process by its role."""
    settings: dict[str, object] = {"ingress_port" if role == "ingress" else "metrics_port": ports[role]}
    if role == "sealer":
        settings["log_anchors"] = folder / "anchors"
    if role == "console":
        settings |= {"database_url": database.console_url, "console_port": 0}
    if role == "eraser":
        settings["database_url"] = database.eraser_url
    if role == "verifier":
        verifier = make_url(database.url).set(username="test_verifier", password="verifier")
        settings["database_url"] = verifier.render_as_string(hide_password=False)
    return settings


def send(amqp_url: str, prometheus: Prometheus) -> None:
    """Events, of which one is large, one of nobody, one unrouted, and one that differs from another of its id."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        for number in range(EVENTS):
            put(channel, "acme.up", f"e-{number}", b"x" * (300_000 if number == 0 else 10))
        put(channel, "acme.nothing", "e", b"x")
        put(channel, UNROUTED, "u", b"x", exchange="")
        prometheus.until(f'sum(waxseal_dedupe_messages_total{{result="new"}}) >= {EVENTS}')
        put(channel, "acme.up", "e-1", b"y")
        prometheus.until("count(sum by (stage) (waxseal_dead_letters_total) > 0) >= 2")


def post(port: int, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/in/acme/hooks"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", headers), timeout=30) as answer:
        assert 202 == answer.status


def lose_consent(gmail: Gmail, prometheus: Prometheus) -> None:
    """A mail is read, one is listed and not given, the history is lost, the provider is slow, and at last consent ends."""
    gmail.put(mail(0))
    prometheus.until("sum(waxseal_mail_fetched_total) > 0")
    gmail.instead("/messages/", BACKEND_ERROR)
    gmail.put(mail(1))
    prometheus.until("sum(waxseal_mail_missing_total) > 0")
    gmail.forget_history()
    prometheus.until("sum(waxseal_mail_resyncs_total) > 0")
    gmail.takes = 2.0
    prometheus.until("sum(waxseal_actor_in_progress) > 0")
    gmail.takes = 0.0
    gmail.tokens.revoke()
    prometheus.until("sum(waxseal_mail_reauthorizations_needed_total) > 0")


#: What is 0 in this test, or may be, and why: by dashboard, panel and legend.
MAY_BE_0 = {
    "waxseal-workers / Not in the search index / entries": "the console copies them at once",
    "waxseal-overview / Oldest at each stage / 2 unclaimed": "`relay` claims at once",
    "waxseal-overview / Oldest at each stage / 4 retries": "`relay` claims them at once when they are due",
    "waxseal-delivery / Share of attempts that fail by our fault / {{transport}}": "nothing of ours fails",
    r"waxseal-slo / (Intake|Delivery|First attempt): burn rate of \w+ / \w+": "likewise: the endpoints and the senders do",
    "waxseal-workers / Actors that fail / {{actor}}": "likewise",
    "waxseal-workers / RabbitMQ blocks publishers / {{resource}}": "it lacks nothing",
    "waxseal-workers / Connections to RabbitMQ made anew / {{connection}}": "it is not restarted",
    "waxseal-workers / Blob store away / {{operation}}": "it is there",
    "waxseal-workers / Retention behind / behind": "nothing is old enough",
    "waxseal-workers / Erased by retention / entries": "likewise, and it is held",
    "waxseal-workers / Removed, because it is kept no longer / {{what}}": "no setting says so",
    r"waxseal-workers / Write-ahead log not archived / \w+": "it is archived nowhere here",
    "waxseal-workers / Unsealed for / unsealed": "`sealer` seals all of it in each of its turns",
    "waxseal-workers / Refused logs / refused": "what is published is a part of the logs",
    "waxseal-workers / Deadlocks within an hour / {{datname}}": "locks are taken in one order",
}


def lacking(prometheus: Prometheus, queries: list[PanelQuery]) -> list[PanelQuery]:
    """The queries that return nothing yet, or nothing but 0 where this load makes more than that."""

    def lacks(query: PanelQuery) -> bool:
        shown = prometheus.shown(query, all_chosen(query.dashboard))
        return not shown if may_be_0(query) else not any(shown)

    return [query for query in queries if lacks(query)]


def may_be_0(query: PanelQuery) -> bool:
    return any(re.fullmatch(each.replace("{{", r"\{\{").replace("}}", r"\}\}"), str(query)) for each in MAY_BE_0)


def test_every_query_of_every_panel_returns_data_and_shows_the_trouble(troubled: Prometheus) -> None:
    lacks, deadline = QUERIES, time.monotonic() + 60
    while (lacks := lacking(troubled, lacks)) and time.monotonic() < deadline:
        time.sleep(1)

    assert [] == [str(query) for query in lacks]
    assert len(QUERIES) > 100


def test_the_same_is_shown_while_each_value_of_each_variable_is_chosen(troubled: Prometheus) -> None:
    for uid in DASHBOARDS:
        options = {name: troubled.options(uid, name) for name in choices(uid)}
        assert [] == [name for name, values in options.items() if not values], uid
        every = {name: chosen(values) for name, values in options.items()}
        queries = [query for query in QUERIES if query.dashboard == uid]
        assert [] == [str(query) for query in queries if not troubled.shown(query, every)]


def test_every_dashboard_marks_starts_and_alerts(troubled: Prometheus) -> None:
    for uid, dashboard in DASHBOARDS.items():
        events = {each["name"]: expanded(each["expr"], **all_chosen(uid)) for each in dashboard["annotations"]["list"]}
        assert {"Deploys", "Firing alerts"} == {name for name, expr in events.items() if troubled.course(expr)}
