"""A tenant is moved between two whole systems under load, and the mover killed again and again. `make move` runs it.

With `PAIRS=1` both cells have a primary and a synchronous standby, and each primary is lost in turn while the mover is at work:
killed and replaced by its standby, or frozen.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import conninfo_to_dict

from ops.servers.private import PrivateServers, private_servers
from ops.settings import environment
from support.net.s3 import make_bucket, s3_server, variables
from support.outages.crew import ROLES, Crew, make_logins
from support.outages.flow import Flow
from support.outages.pair import Pair
from support.outages.senders import (
    Arrivals,
    Event,
    assert_once_and_in_order,
    configuration,
    endpoint,
    first,
    post,
    recorded,
    send_webhooks,
)
from support.stack import WAXSEAL
from support.waiting import wait_for

KILLS = int(os.environ.get("WAXSEAL_TEST_MOVE", "0"))
INGESTS = int(os.environ.get("WAXSEAL_TEST_INGESTS", "1"))  # with more the order within a subject is not promised
BUCKETS = bool(os.environ.get("WAXSEAL_TEST_BUCKETS"))  # bodies in two buckets of an S3 server, and not in folders
PAIRS = bool(os.environ.get("WAXSEAL_TEST_PAIRS"))
ORIGIN = "cells.test"
FROZEN = 10.0  # seconds
LONGEST = 4.0  # seconds that the mover is left to work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.skipif(not KILLS, reason="`make move` runs it")]


@dataclass
class System:
    """A cell: servers, processes, and where an operator finds its settings."""

    folder: Path
    servers: PrivateServers
    crew: Crew
    ingests: list[Crew]  # beside that of the crew
    variables: Path
    owner: str
    key: str
    pair: Pair | None

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*WAXSEAL, *arguments], env=self.environment(), capture_output=True, text=True, check=False)

    def environment(self) -> dict[str, str]:
        told = (line.split("=", 1) for line in self.variables.read_text().splitlines())
        return {**environment(), **dict(told)}

    def rows(self, query: str) -> list[tuple]:
        with psycopg.connect(self.owner, autocommit=True) as conn:
            return conn.execute(query).fetchall()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def cell(folder: Path, stack: ExitStack, blobs: str) -> System:
    (folder / "blobs").mkdir(parents=True)
    (folder / "second").mkdir()
    servers = stack.enter_context(private_servers(folder))
    key = Fernet.generate_key().decode()
    pair = Pair(folder / "pair") if PAIRS else None
    if pair is not None:
        stack.callback(pair.stop)
        pair.start()
    owner = servers.database_url.replace("+psycopg", "") if pair is None else pair.url()
    settings = {
        "AMQP_URL": servers.amqp_url,
        "KEYS": key,
        "BLOBS": blobs or str(folder / "blobs"),
        "LOG_FILES": str(folder / "published"),
        "LOG_ORIGIN": ORIGIN,
        "LOG_EVERY": "1",
        "ALLOW_NETWORKS": "127.0.0.0/8",
    }
    url = "postgresql://{}:{}@{host}:{port}/{dbname}"
    place = conninfo_to_dict(owner)
    crews = [
        Crew(each, pair.url if pair else lambda login, password: url.format(login, password, **place), settings, roles=roles)
        for each, roles in [(folder, ROLES), *[(folder / "second", ("ingest",))] * (INGESTS - 1)]
    ]
    variables = folder / "cell.env"
    told = {**settings, "DATABASE_URL": owner}
    variables.write_text("".join(f"WAXSEAL_{name}={value}\n" for name, value in told.items()))
    migrated = crews[0].command("migrate", url=owner)
    assert 0 == migrated.returncode, migrated.stderr
    make_logins(owner)
    return System(folder, servers, crews[0], crews[1:], variables, owner, key, pair)


def test_a_tenant_moves_under_load_while_the_mover_is_killed(
    module_folder: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = buckets(stack, monkeypatch) if BUCKETS else ("", "")
    old, new = (cell(module_folder / name, stack, place) for name, place in zip(("old", "new"), blobs, strict=True))
    arrivals = stack.enter_context(endpoint())
    config = module_folder / "waxseal.yaml"
    config.write_text(configuration(arrivals.url))
    applied = old.command("apply", str(config))
    assert 0 == applied.returncode, applied.stderr
    for crew in (old.crew, new.crew, *old.ingests, *new.ingests):
        crew.start()
        stack.callback(crew.stop)
    wait_for(lambda: old.crew.ready() and new.crew.ready(), 90)
    large = [(f"large-{number}", "large") for number in range(10)]
    for id, subject in large:
        assert 202 == post(old.crew.ingress_url, id, json.dumps({"subject": subject, "note": "x" * 300_000}))
    flow = Flow(old.crew.ingress_url, old.servers.amqp_url, arrivals)
    stack.callback(flow.end)
    flow.start()
    wait_for(lambda: flow.whole(time.monotonic() - 3), 60)
    bundle = module_folder / "before.jsonl"
    exported = old.command("export", "acme", "-o", str(bundle))
    assert 0 == exported.returncode, exported.stderr

    if PAIRS:
        moved_through_outages(old, new)
    else:
        moved(old, new)
    with forwarding(old, new):
        since = time.monotonic()
        wait_for(lambda: flow.whole(since), 60)
        say("flow is whole in the new cell, by way of the old one")
        flow.stop()
        wait_for(flow.all_arrived, 60)
    direct = [(f"direct-{number}", "subject-0-0") for number in range(20)]
    send_webhooks(lambda: new.crew.ingress_url, direct)
    wait_for(lambda: all(id in arrivals.first for id, _subject in direct), 60)
    assert_nothing_lost(new, [large, *flow.sent, direct], arrivals)
    assert_proved(old, new, bundle)
    finished(old, new)


def buckets(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two blob stores in an S3 server, which all processes find."""
    address = stack.enter_context(s3_server())
    for name, value in variables(address).items():
        monkeypatch.setenv(name, value)
    return make_bucket(address), make_bucket(address)


def moved(old: System, new: System) -> None:
    """The mover is killed `KILLS` times at most, some time after it begins its work, and then ends."""
    command = [*WAXSEAL, "tenant", "move", "acme", "--to", str(new.variables), "--yes"]
    for _ in range(KILLS):
        mover = subprocess.Popen(command, env=old.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert mover.stdout is not None
        begun = mover.stdout.readline()
        after = random.uniform(0, LONGEST)
        try:
            said, _ = mover.communicate(timeout=after)
            assert 0 == mover.returncode, begun + said
            say(f"ended by itself: {begun}{said}")
            break
        except subprocess.TimeoutExpired:
            mover.kill()
            said, _ = mover.communicate()
        states = [each.rows("SELECT state, (SELECT max(size) FROM log) FROM tenant_move") for each in (old, new)]
        say(f"killed {after:.1f} s after it began: {states[0]} -> {states[1]}")
    ended = old.command(*command[len(WAXSEAL) :])
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    say(f"at last: {ended.stdout}")


@dataclass(frozen=True)
class Loss:
    """A cell's database is lost as soon as the tenant is in this state; if it is frozen, the mover may be killed meanwhile."""

    whose: str
    how: str
    when: str
    mover: str = ""

    def __str__(self) -> str:
        return f"database of the {self.whose} cell: {self.how} while {self.when}{self.mover}"


#: Each in a run of the mover of its own. A mover that is not killed goes on after a server that was frozen, and ends.
LOSSES = (
    Loss("new", "freeze", "copying", ", mover killed"),
    Loss("old", "freeze", "copying", ", mover killed"),
    Loss("new", "kill", "copying"),
    Loss("old", "kill", "copying"),
    Loss("old", "freeze", "moving", ", mover killed"),
    Loss("new", "kill", "moving"),
    Loss("old", "kill", "moving"),
    Loss("new", "freeze", "moving"),
)


def moved_through_outages(old: System, new: System) -> None:
    """A database is lost in each run of the mover, which goes on or ends with an error, and is run again."""
    command = [*WAXSEAL, "tenant", "move", "acme", "--to", str(new.variables), "--yes"]
    for loss in LOSSES:
        mover = subprocess.Popen(command, env=old.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert mover.stdout is not None
        begun = mover.stdout.readline()
        await_state(old, loss.when, mover)
        since = time.monotonic()
        if mover.poll() is None:
            lose({"old": old, "new": new}[loss.whose], loss.how, mover if loss.mover else None)
        said, _ = mover.communicate(timeout=120)
        say(f"{loss}: {begun}{said}exit code {mover.returncode} after {time.monotonic() - since:.1f} s")
        assert mover.returncode in ((-signal.SIGKILL,) if loss.mover else (0, 2))
        assert "Traceback" not in said
        if not mover.returncode:
            break
    ended = old.command(*command[len(WAXSEAL) :])
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    say(f"at last: {ended.stdout}")


def await_state(old: System, state: str, mover: "subprocess.Popen[str]") -> None:
    with psycopg.connect(old.owner, autocommit=True) as conn:
        while mover.poll() is None and conn.execute("SELECT state FROM tenant_move").fetchall() != [(state,)]:
            time.sleep(0.005)


def lose(cell: System, how: str, mover: "subprocess.Popen[str] | None") -> None:
    """Returns when the cell has a database again, with a standby."""
    assert cell.pair is not None
    lost = cell.pair.primary
    if how == "freeze":
        cell.pair.freeze(lost)
        time.sleep(FROZEN)
        if mover is not None:
            mover.kill()
        cell.pair.thaw(lost)
    else:
        cell.pair.kill(lost)
        cell.pair.fence(lost)
        cell.pair.promote()
        cell.pair.rejoin(lost)


def finished(old: System, new: System) -> None:
    """The first cell deletes its copy, is killed at it again and again, and ends."""
    command = [*WAXSEAL, "tenant", "move", "acme", "--to", str(new.variables), "--finish", "--yes"]
    for _ in range(KILLS):
        deletes = subprocess.Popen(command, env=old.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert deletes.stdout is not None
        deletes.stdout.readline()
        time.sleep(random.uniform(0, 0.5))
        deletes.kill()
        deletes.communicate()
        say(f"killed: {old.rows('SELECT state, (SELECT count(*) FROM chain), (SELECT count(*) FROM entry) FROM tenant_move')}")
        if not old.rows("SELECT FROM tenant_move"):
            break
        verified = old.command("verify", "--tenant", "acme")
        assert "NOT intact" not in verified.stdout, verified.stdout
    else:
        ended = old.command(*command[len(WAXSEAL) :])
        assert 0 == ended.returncode, ended.stdout + ended.stderr
        say(f"at last: {ended.stdout}")
    for table in ("entry", "content", "leaf", "chain", "log", "delivery", "tenant", "tenant_move"):
        assert [(0,)] == old.rows(f"SELECT count(*) FROM {table}"), table
    verified = new.command("verify", "--tenant", "acme")
    assert 0 == verified.returncode, verified.stdout


@contextmanager
def forwarding(old: System, new: System) -> Iterator[None]:
    command = [*WAXSEAL, "tenant", "forward", "acme", "--to", str(new.variables)]
    forwarder = subprocess.Popen(command, env=old.environment(), stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        forwarder.terminate()
        said, _ = forwarder.communicate(timeout=30)
        say(said)


def assert_nothing_lost(new: System, sent: list[list[Event]], arrivals: Arrivals) -> None:
    with psycopg.connect(new.owner, autocommit=True) as conn:
        wait_for(lambda: first(conn, "SELECT count(*) FROM delivery WHERE state <> 'delivered'") == 0, 60)
        assert 0 == first(conn, "SELECT count(*) FROM dead_letter")
        found = recorded(conn)
        if INGESTS > 1:  # each event as a subject of its own, of which there is no order
            sent, found = [[(id, id) for id, _ in each] for each in sent], [(id, id) for id, _ in found]
        assert_once_and_in_order(sent, found, arrivals.seen)
    say(f"{len(arrivals.seen)} events, none lost, none twice in the ledger{'' if INGESTS > 1 else ', in their order'}")


def assert_proved(old: System, new: System, bundle: Path) -> None:
    for each in (old, new):
        verified = each.command("verify", "--tenant", "acme")
        assert 0 == verified.returncode, verified.stdout + verified.stderr
    assert 0 == old.command("verify-bundle", str(bundle)).returncode
    keys = [each.command("log", "key", "acme", "--json").stdout for each in (old, new)]
    assert vkeys(keys[0]) == vkeys(keys[1])
    ((before_size,),) = old.rows("SELECT max(size) FROM checkpoint")
    wait_for(lambda: new.rows("SELECT max(size) FROM checkpoint")[0][0] > before_size, 30)
    wait_for(lambda: new.command("prove", "acme", "subject-0-0").returncode == 0, 30)
    after_size = new.rows("SELECT max(size) FROM checkpoint")[0][0]
    proved = new.command("prove", "acme", "--consistency", str(before_size), str(after_size))
    assert 0 == proved.returncode, proved.stdout + proved.stderr
    say(f"the log of {after_size} leaves there goes on from the one of {before_size} that was sealed here, under the same key")
    there = "SELECT entry.hash, position FROM leaf JOIN entry USING (chain_id, seq) ORDER BY position"
    before, after = old.rows(there), new.rows(there)
    assert before == after[: len(before)]
    assert 0 == old.rows("SELECT count(*) FROM dead_letter")[0][0]
    say(f"{len(before)} entries came with their hashes and positions, {len(after) - len(before)} were recorded there")


def vkeys(listed: str) -> list[str]:
    return [json.loads(line)["vkey"] for line in listed.splitlines()]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
