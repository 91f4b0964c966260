"""Processes on hosts of their own, far from their servers, on lines that lose packets and are cut under load. `make hosts`.

ingress, ingest, relay, deliver and mail-pull each run in a network namespace; the servers, the endpoint, the mailbox and those
who send are in another.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import psycopg
import pytest
from cryptography.fernet import Fernet

from ops.migrate import migrate
from ops.servers.private import private_servers
from pipeline.mail.event_attributes import event_id
from support.mail.dovecot import PASSWORD, mail, private_dovecot
from support.outages.crew import Crew, make_logins
from support.outages.flow import Flow
from support.outages.hosts import SERVERS, hosts
from support.outages.network import own_network
from support.outages.senders import assert_once_and_in_order, configuration, endpoint, first, recorded
from support.waiting import wait_for

CUT = float(os.environ.get("WAXSEAL_TEST_HOSTS", "0"))  # seconds for which each host is cut off
FAR = ("ingress", "ingest", "relay", "deliver", "mail-pull")
DELAYS = (2, 50)  # milliseconds each way
LOST = 1  # of a hundred packets, each way
STEADY = 10.0  # seconds at each delay
MAILBOX = """
mailboxes:
  - {{tenant: acme, name: support, kind: imap, host: "{host}", port: {port}, tls: false, username: us,
     password: "{password}", poll: 2s, subject: "header:Subject"}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CUT, reason="`make hosts` runs it, for minutes")]


class World:
    """The servers, the hosts, the processes on them, the senders and the endpoint."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.arrivals = stack.enter_context(endpoint())
        self.box = stack.enter_context(private_dovecot())
        self.servers = stack.enter_context(private_servers(folder))
        self.hosts = stack.enter_context(hosts(FAR))
        self._let_in(folder)
        migrate(self.servers.database_url)
        make_logins(self.servers.database_url)
        settings = {
            "AMQP_URL": _of_servers(self.servers.amqp_url),
            "KEYS": Fernet.generate_key().decode(),
            "BLOBS": str(folder / "blobs"),
            "LOG_FILES": str(folder / "published"),
            "LOG_ORIGIN": "hosts.test",
            "ALLOW_NETWORKS": f"{SERVERS}/32",
            "LEASE": "10",
        }
        (folder / "blobs").mkdir()
        self.crew = Crew(folder, self._database_url, settings, hosts=self.hosts.by_name)
        config = folder / "waxseal.yaml"
        mailbox = MAILBOX.format(host=SERVERS, port=self.box.port, password=PASSWORD)
        config.write_text(configuration(_of_servers(self.arrivals.url)) + mailbox)
        applied = self.crew.command("apply", str(config), url=self.servers.database_url)
        assert 0 == applied.returncode, applied.stderr
        self.crew.start()
        stack.callback(self.crew.stop)
        wait_for(self.crew.ready, 90)
        self.flow = Flow(self.crew.ingress_url, self.servers.amqp_url, self.arrivals, self._post)
        stack.callback(self.flow.end)

    def _let_in(self, folder: Path) -> None:
        """Postgres takes connections from the hosts too, which are not this one."""
        (clients,) = folder.rglob("pg_hba.conf")
        with clients.open("a") as known:
            known.write("host all all 10.77.0.0/16 scram-sha-256\n")
        with psycopg.connect(self.servers.database_url, autocommit=True) as conn:
            conn.execute("SELECT pg_reload_conf()")

    def _database_url(self, login: str, password: str) -> str:
        return _of_servers(self.servers.url_for(login, password))

    def _post(self, text: str, subject: str) -> str:
        raw = mail(0, message_id=f"{text}@example.org").replace(b"Subject: number 0", f"Subject: {subject}".encode())
        self.box.deliver("us", raw)
        return event_id(raw)

    def late(self, since: float) -> list[float]:
        """Seconds from the sending of each event that arrived, and was sent since then, until it arrived."""
        times = zip(self.flow.sent, self.flow.times, strict=True)
        sent = [(id, at) for ids, ats in times for (id, _subject), at in zip(ids, ats, strict=False) if at >= since]
        return [self.arrivals.first[id] - at for id, at in sent if id in self.arrivals.first]

    def catch_up(self) -> float:
        """Returns when all that was sent until now has arrived, with the seconds that this took."""
        began, sent = time.monotonic(), [id for events in self.flow.sent for id, _subject in list(events)]
        with suppress(AssertionError):
            wait_for(lambda: all(id in self.arrivals.first for id in sent), 120)
        assert [] == [id for id in sent if id not in self.arrivals.first]
        return time.monotonic() - began


def _of_servers(url: str) -> str:
    return url.replace(urlsplit(url).hostname or "", SERVERS)


@pytest.fixture
def world(data_folder: Path) -> Iterator[World]:
    missing = own_network()
    if missing is not None:
        pytest.fail(f"hosts cannot be made: {missing}")
    with ExitStack() as stack:
        yield World(data_folder, stack)


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@pytest.mark.timeout(1800)
def test_nothing_is_lost_twice_or_out_of_order_on_long_lines_that_are_cut(world: World) -> None:
    world.hosts.lose(LOST)
    world.flow.start()
    for delay in DELAYS:
        world.hosts.delay(delay / 1000)
        began = time.monotonic()
        time.sleep(STEADY)
        took = world.late(began)
        say(f"{delay:3} ms each way, {LOST} % lost: {len(took)} events arrived, half of them within {median(took):.2f} s")
    for name, host in world.hosts.by_name.items():
        host.lose(100)
        time.sleep(CUT)
        host.lose(LOST)
        say(f"{name:10} cut off for {CUT:.0f} s; all had arrived {world.catch_up():.1f} s later")

    world.flow.stop()
    wait_for(world.flow.all_arrived, 120)
    wait_for(world.crew.ready, 60)
    with psycopg.connect(world.servers.database_url, autocommit=True) as conn:
        wait_for(lambda: first(conn, "SELECT count(*) FROM delivery WHERE state <> 'delivered'") == 0, 120)
        assert 0 == first(conn, "SELECT count(*) FROM dead_letter")
        ledger = recorded(conn)
    assert_once_and_in_order(world.flow.sent, ledger, world.arrivals.seen)
    verified = world.crew.command("verify")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    twice = sum(count - 1 for count in world.arrivals.seen.values())
    say(f"processes that ended: {', '.join(world.crew.ends) or 'none'}")
    what = f"{len(ledger)} events, {len(world.flow.sent[-1])} of them mails"
    say(f"{len(FAR)} hosts, each cut off once, {what}: none lost, none twice in the ledger, in order; {twice} delivered again")
