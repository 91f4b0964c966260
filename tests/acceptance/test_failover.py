"""Brokers and databases of several hosts are lost and come back under load; then every event is checked. `make failover`.

It has a network of its own, if the kernel and the account allow that; without one nothing is cut, and that is said.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet

from ops.migrate import migrate
from ops.server_urls import database_url
from support.outages import cluster, pair
from support.outages.cluster import Cluster
from support.outages.crew import Crew, make_logins
from support.outages.flow import Flow, Whole
from support.outages.network import cut, own_network
from support.outages.pair import Pair
from support.outages.senders import assert_once_and_in_order, configuration, endpoint, first, recorded
from support.waiting import wait_for
from workers.amqp.topology import INBOX

TIMES = int(os.environ.get("WAXSEAL_TEST_FAILOVER", "0"))
ONLY = os.environ.get("WAXSEAL_TEST_FAILOVER_ONLY", "").split()  # names of outages, in their order
GOAL = 15.0  # seconds after a death until the flow is whole
FROZEN = 30.0  # seconds
LEADERLESS = 3.0  # seconds; less than RabbitMQ takes to notice that a node is frozen
BACK = 15.0  # seconds for which an old primary is there beside the new one

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not TIMES, reason="`make failover` runs it, for minutes")]


class World:
    """The servers, the processes, the senders and the endpoint."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.cuts = own_network()
        self.arrivals = stack.enter_context(endpoint())
        self.cluster, self.pair = Cluster(folder / "mq"), Pair(folder / "pg")
        for server in (self.pair, self.cluster):
            stack.callback(server.stop)
            server.start()
        migrate(database_url(self.pair.url()))
        make_logins(self.pair.url())
        settings = {
            "AMQP_URL": self.cluster.urls,
            "KEYS": Fernet.generate_key().decode(),
            "BLOBS": str(folder / "blobs"),
            "LOG_FILES": str(folder / "published"),
            "LOG_ORIGIN": "failover.test",
            "ALLOW_NETWORKS": "127.0.0.0/8",
        }
        (folder / "blobs").mkdir()
        self.crew = Crew(folder, self.pair.url, settings)
        config = folder / "waxseal.yaml"
        config.write_text(configuration(self.arrivals.url))
        applied = self.crew.command("apply", str(config), url=self.pair.url())
        assert 0 == applied.returncode, applied.stderr
        self.crew.start()
        stack.callback(self.crew.stop)
        wait_for(self.crew.ready, 60)
        self.flow = Flow(self.crew.ingress_url, self.cluster.urls, self.arrivals)
        stack.callback(self.flow.end)
        self.flow.start()
        wait_for(lambda: self.flow.whole(time.monotonic() - 3), 60)

    def whole(self, since: float, watched: float) -> Whole:
        """Watches for some seconds, and then until the flow is whole."""
        time.sleep(max(0.0, since + watched - time.monotonic()))
        wait_for(lambda: self.flow.whole(since), 120)
        found = self.flow.whole(since)
        assert found is not None
        return found

    def promote(self) -> None:
        """The operator's part."""
        self.pair.promote()

    def old_primary_is_left_alone(self, old: int) -> None:
        """Nothing is written there while it is a second primary."""
        before = self.pair.changes(old)
        time.sleep(BACK)
        assert before == self.pair.changes(old)


@dataclass(frozen=True)
class Outage:
    """`act` loses something, has it replaced or brings it back, and says how long the flow was not whole."""

    what: str
    act: Callable[[World, int], Whole]
    death: bool = True  # the goal holds
    cuts: bool = False


def kill_broker(world: World, number: int) -> Whole:
    since = time.monotonic()
    os.kill(world.cluster.nodes[number].pid, signal.SIGKILL)
    whole = world.whole(since, 6.0)
    if number == 0:
        told = world.crew.command("doctor", "--rabbitmqctl", shlex.join(world.cluster.rabbitmqctl(on=1)))
        assert f"r0@{cluster.ADDRESSES[0]} of 3 nodes: not running" in told.stdout, told.stdout
        assert "waxseal.ingest: 2 of 3 members are there" in told.stdout, told.stdout
        assert "event order" not in told.stdout, told.stdout
    world.cluster.start_node(number)
    return whole


def kill_leader(world: World, _turn: int) -> Whole:
    """While a queue has no leader, all that is sent to it is refused."""
    number = world.cluster.leader(INBOX)
    other = world.cluster.nodes[(number + 1) % 3].pid
    since = time.monotonic()
    os.kill(other, signal.SIGSTOP)
    os.kill(world.cluster.nodes[number].pid, signal.SIGKILL)
    time.sleep(LEADERLESS)
    os.kill(other, signal.SIGCONT)
    whole = world.whole(since, 6.0)
    world.cluster.start_node(number)
    return whole


def freeze_broker(world: World, turn: int) -> Whole:
    """One that a process depends on: only its silence tells that process of it."""
    number = world.cluster.serving(("ingress", "ingest")[turn % 2])
    node = world.cluster.nodes[number]
    since = time.monotonic()
    os.kill(node.pid, signal.SIGSTOP)
    whole = world.whole(since, FROZEN)
    os.kill(node.pid, signal.SIGCONT)
    return whole


def cut_broker(world: World, turn: int) -> Whole:
    """One that a process depends on: the others go on without it."""
    number = world.cluster.serving(("ingest", "ingress")[turn % 2])
    since = time.monotonic()
    others = [address for address in cluster.ADDRESSES if address != cluster.ADDRESSES[number]]
    with cut([cluster.ADDRESSES[number]], others):
        whole = world.whole(since, FROZEN)
    world.cluster.await_whole()
    return whole


def kill_primary(world: World, _turn: int) -> Whole:
    since, old = time.monotonic(), world.pair.primary
    world.pair.kill(old)
    world.pair.fence(old)
    world.promote()
    whole = world.whole(since, 6.0)
    world.pair.rejoin(old)
    return whole


def kill_primary_that_returns(world: World, _turn: int) -> Whole:
    since, old = time.monotonic(), world.pair.primary
    world.pair.kill(old)
    world.promote()
    whole = world.whole(since, 3.0)
    world.pair.start_server(old)  # not fenced
    world.old_primary_is_left_alone(old)
    world.pair.kill(old)
    world.pair.rejoin(old)
    return whole


def freeze_primary(world: World, _turn: int) -> Whole:
    since, old = time.monotonic(), world.pair.primary
    world.pair.freeze(old)
    world.promote()
    whole = world.whole(since, FROZEN)
    world.pair.kill(old)
    world.pair.rejoin(old)
    return whole


def freeze_primary_that_returns(world: World, _turn: int) -> Whole:
    since, old = time.monotonic(), world.pair.primary
    world.pair.freeze(old)
    world.promote()
    whole = world.whole(since, FROZEN)
    world.pair.thaw(old)
    time.sleep(2.0)  # what had been sent before is still done there
    world.old_primary_is_left_alone(old)
    world.pair.kill(old)
    world.pair.rejoin(old)
    return whole


def cut_primary_that_returns(world: World, _turn: int) -> Whole:
    since, old = time.monotonic(), world.pair.primary
    with cut([pair.ADDRESSES[old]]):
        world.promote()
        whole = world.whole(since, FROZEN)
    time.sleep(2.0)
    world.old_primary_is_left_alone(old)
    world.pair.kill(old)
    world.pair.rejoin(old)
    return whole


def lose_standby(world: World, _turn: int) -> Whole:
    since, standby = time.monotonic(), world.pair.standby
    world.pair.kill(standby)
    time.sleep(2.0)
    world.pair.protect("")  # the operator's decision: until then every commit waits
    whole = world.whole(since, 6.0)
    world.pair.start_server(standby)
    world.pair.protect()
    return whole


OUTAGES = (
    Outage("broker killed", kill_broker),
    Outage("primary killed, standby promoted", kill_primary),
    Outage("node of ingress, then of ingest, frozen", freeze_broker, death=False),
    Outage(f"the inbox's leader killed, no other for {LEADERLESS:.0f} s", kill_leader),
    Outage("primary killed, comes back as a second one", kill_primary_that_returns),
    Outage("primary frozen, standby promoted", freeze_primary, death=False),
    Outage("node of ingest, then of ingress, cut off", cut_broker, death=False, cuts=True),
    Outage("primary frozen, comes back as a second one", freeze_primary_that_returns, death=False),
    Outage("primary cut off, comes back as a second one", cut_primary_that_returns, death=False, cuts=True),
    Outage("standby killed, commits let go on", lose_standby, death=False),
)


@pytest.fixture
def world(data_folder: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(data_folder, stack)


def outages(world: World) -> Iterator[tuple[int, Outage]]:
    """The outages in turn, each time of another broker node."""
    wanted = [each for each in OUTAGES if not (each.cuts and world.cuts) and (not ONLY or each.act.__name__ in ONLY)]
    turn = 0
    while True:
        for each in wanted:
            yield turn % 3, each
        turn += 1


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@pytest.mark.timeout(7200)
def test_nothing_is_lost_twice_or_out_of_order_whichever_host_is_lost(world: World) -> None:
    if world.cuts:
        say(f"nothing is cut off: {world.cuts}")
    deaths = []
    for number, (turn, outage) in enumerate(islice(outages(world), TIMES), 1):
        leads = "broker" in outage.what and world.cluster.leader(INBOX, on=(turn + 1) % 3) == turn
        whole = outage.act(world, turn)
        what = f"{outage.what}{' (the leader)' if leads else ''}"
        times = f"whole after {whole.after:5.1f} s; longest to be accepted {whole.accepted:5.1f} s"
        say(f"{number:3}  {what:47} {times}, delivered {whole.delivered:5.1f} s")
        deaths += [whole.after] if outage.death else []

    world.flow.stop()
    wait_for(world.flow.all_arrived, 120)
    wait_for(world.crew.ready, 60)
    with psycopg.connect(world.pair.url(), autocommit=True) as conn:
        wait_for(lambda: first(conn, "SELECT count(*) FROM delivery WHERE state <> 'delivered'") == 0, 120)
        assert 0 == first(conn, "SELECT count(*) FROM dead_letter")
        ledger = recorded(conn)
        sealed = "SELECT count(*) FROM checkpoint WHERE size >= (SELECT count(*) FROM entry)"
        wait_for(lambda: first(conn, sealed), 60)
        assert 0 == first(conn, "SELECT count(*) FROM log_refusal")
    assert_once_and_in_order(world.flow.sent, ledger, world.arrivals.seen)
    verified = world.crew.command("verify")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    twice = sum(count - 1 for count in world.arrivals.seen.values())
    say(f"{TIMES} outages, {len(ledger)} events: none lost, none twice in the ledger, in order; {twice} delivered again")
    say(f"processes that ended: {', '.join(world.crew.ends) or 'none'}; whole {max(deaths, default=0):.1f} s after a death")
    assert max(deaths, default=0) <= GOAL
