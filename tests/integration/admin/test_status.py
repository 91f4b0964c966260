"""`waxseal status`: what is in trouble by name, processes, rates, and what is shown when a server is away."""

import io
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from ops.admin.status.overview import Watcher
from ops.cli.status import lines
from ops.cli.terminal import live
from ops.runtime.db import transaction
from ops.settings import Settings
from ops.system.crash_loops import EventWriter
from ops.telemetry import ingest_metrics, metrics, probe_server  # noqa: F401 - registers the series of ingest
from pipeline.store.dead_letters import dead_letters
from schemas.dead_letter import DeadLetter
from support.cli import Cli
from support.waiting import wait_for
from workers.amqp.queue_depths import queues

NOW = datetime.now(UTC)
NOWHERE = "127.0.0.1:1"

FILE = """
tenants: [{name: acme}]
sources: [{tenant: acme, name: shop, kind: none}]
endpoints:
  - {tenant: acme, name: gone, url: "http://127.0.0.1:9"}
  - {tenant: acme, name: open, url: "http://127.0.0.1:9"}
  - {tenant: acme, name: failing, url: "http://127.0.0.1:9"}
  - {tenant: acme, name: slow, url: "http://127.0.0.1:9"}
  - {tenant: acme, name: well, url: "http://127.0.0.1:9"}
mailboxes:
  - {tenant: acme, name: consent, kind: imap, host: 127.0.0.1, username: u, password: p}
  - {tenant: acme, name: healthy, kind: imap, host: 127.0.0.1, username: v, password: p}
"""
TROUBLES = """
UPDATE endpoint SET state = 'disabled', reason = 'it answered 410' WHERE name = 'gone';
INSERT INTO endpoint_health (endpoint_id, breaker, opened_at, probe_at, last_error)
  SELECT id, 'open', now(), now(), 'status: 503' FROM endpoint WHERE name = 'open';
INSERT INTO endpoint_health (endpoint_id, failing_since, streak, last_error)
  SELECT id, now() - interval '90 s', 4, 'timeout' FROM endpoint WHERE name = 'failing';
INSERT INTO delivery (endpoint_id, tenant, chain_id, seq, size, state, created_at, next_attempt_at)
  SELECT id, 'acme', gen_random_uuid(), 0, 2, 'pending', now(), now() - interval '5 min' FROM endpoint WHERE name = 'slow';
UPDATE mailbox SET state = 'needs_reauthorization', reason = 'consent ended' FROM source
  WHERE source.id = mailbox.id AND name = 'consent';
"""


@pytest.fixture
def troubled(cli: Cli, apply, engine, database) -> Cli:
    apply()
    for statement in TROUBLES.strip().split(";\n"):
        database.run(statement)
    with transaction(engine) as conn:
        dead_letters.bury(conn, [DeadLetter("admit", "malformed", "x", "acme", "shop")] * 3, NOW)
        dead_letters.bury(conn, [DeadLetter("append", "chain_broken", "x", "acme", "shop")], NOW)
    return cli


def of_kind(found: dict[str, Any], kind: str) -> dict[str, str]:
    return {each["name"]: each["said"] for each in found["troubles"] if each["kind"] == kind}


def test_what_is_in_trouble_is_named_with_a_command_that_leads_further(troubled: Cli) -> None:
    (found,) = troubled.json("status", "--over", 0)

    endpoints, mailboxes = of_kind(found, "endpoint"), of_kind(found, "mailbox")
    assert ["acme/gone", "acme/open", "acme/slow", "acme/failing"] == list(endpoints)
    assert "disabled: it answered 410; 0 undelivered" == endpoints["acme/gone"]
    assert "breaker open: status: 503; 0 undelivered" == endpoints["acme/open"]
    assert "4 failures in a row for 9" in endpoints["acme/failing"]
    assert endpoints["acme/slow"].startswith("the oldest delivery is due for 3")
    assert {"acme/consent": "needs reauthorization: consent ended"} == mailboxes
    letters = {name: said.partition(",")[0] for name, said in of_kind(found, "dead_letters").items()}
    assert {"malformed": "3 open at admit", "chain_broken": "1 open at append"} == letters
    for each in found["troubles"]:
        program, *words = shlex.split(each["look"])
        if program == "waxseal" and words[0] != "doctor":
            assert troubled.output(*words), each["look"]


def test_the_route_is_shown_with_what_waits_and_for_how_long(troubled: Cli) -> None:
    (found,) = troubled.json("status", "--over", 0)
    shown = troubled.output("status", "--over", 0)
    stages = {each["stage"]: each for each in found["route"]}

    assert ["receive", "record", "sequence", "claim", "try", "deliver", "later", "bury", "mail"] == list(stages)
    assert (1, None) == (stages["claim"]["waiting"], stages["claim"]["drain_seconds"])
    assert 300 <= stages["claim"]["oldest_seconds"] < 400
    assert 4 == stages["bury"]["waiting"]
    assert [3, 1] == [each["count"] for each in found["dead_letters_by_reason"]]
    assert "endpoint acme/open: breaker open: status: 503" in shown
    assert "look: waxseal endpoint show acme open" in shown


def test_rates_come_from_the_processes(database, servers, tmp_path) -> None:
    with_probe = probe_server.serve("127.0.0.1", 0, {"broker": lambda: "RabbitMQ is away"})
    settings = Settings(database_url=database.worker_url, amqp_url=servers.amqp_url)
    urls = [f"http://127.0.0.1:{with_probe.port}/metrics", f"http://{NOWHERE}/metrics"]
    watcher = Watcher(tmp_path, settings, queues, urls)
    try:
        watcher.sample()
        metrics.observe_ingested("amqp", "accepted", 1000)
        metrics.observe_ingested("amqp", "duplicate", 5000)
        found = watcher.look()
    finally:
        watcher.close()
        with_probe.close()

    record = next(each for each in found["route"] if each["stage"] == "record")
    assert 0 < record["per_second"] * found["measured_seconds"] < 2000
    assert {f"127.0.0.1:{with_probe.port}": "not ready: broker: RabbitMQ is away"}.items() <= of_kind(found, "process").items()
    assert "does not answer" in of_kind(found, "process")[NOWHERE]


@pytest.fixture
def stack(database: Any, servers: Any, tmp_path: Path) -> Iterator[Path]:
    """A data folder whose system has one process that runs, restarted a moment ago, and one that has died."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(60)
    me = psutil.Process()
    stack = {
        "database_url": database.worker_url,
        "amqp_url": servers.amqp_url,
        "blobs": str(tmp_path),
        "metrics": {},
        "pids": {"relay": [me.pid], "ingest": [dead.pid], "deliver": []},
        "started": {str(me.pid): me.create_time(), str(dead.pid): 1.0},
        "processes": {
            "relay": {"role": "relay", "pid": me.pid, "restarts": 0, "last_end": ""},
            "ingest": {"role": "ingest", "pid": dead.pid, "restarts": 7, "last_end": "ingest exited with 1: plug it in"},
        },
    }
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    return tmp_path


def test_processes_have_an_age_and_their_restarts_and_who_is_down_says_why(cli, stack) -> None:
    (found,) = cli.json("status", "--over", 0, "--data", stack)
    shown = cli.output("status", "--over", 0, "--data", stack)

    (relay,), (ingest,) = found["processes"]["relay"], found["processes"]["ingest"]
    assert (True, "relay", 0) == (relay["up"], relay["name"], relay["restarts"])
    assert relay["age_seconds"] > 0
    assert (False, None, 7) == (ingest["up"], ingest["age_seconds"], ingest["restarts"])
    assert {"ingest": "it does not run; before: ingest exited with 1: plug it in"} == of_kind(found, "process")
    assert f"look: tail -n 50 {stack}/log/ingest.log" in shown
    assert "deliver        DOWN" in shown


def test_without_the_database_or_the_broker_everything_else_is_shown(cli, stack, database) -> None:
    away = cli.but(database_url=f"postgresql://u:p@{NOWHERE}/x")
    ended, unheard = away.run("status", "--over", 0), away.run("status", "--over", 0, "--json")
    (found,) = cli.but(amqp_url=f"amqp://u:p@{NOWHERE}/").json("status", "--over", 0)

    assert (2, 2) == (ended.exit_code, unheard.exit_code)
    assert "waxseal.ingest: " in ended.stdout
    assert "look: waxseal doctor" in ended.stdout
    assert ended.stderr.startswith("Error: the database does not answer")
    without = json.loads(unheard.stdout)
    assert (None, None) == (without["deliveries"], without["ledger"])
    assert "waxseal.ingest" in without["queues"]
    assert (None, 0, 0) == (found["queues"], found["ledger"]["entries"], found["ledger"]["chains"])
    assert "does not answer" in of_kind(found, "broker")["broker"]


def test_a_crash_loop_is_written_as_soon_as_postgres_takes_it(database, cli) -> None:
    database.run("ALTER TABLE operator_event RENAME TO away")
    writer = EventWriter(database.url)
    try:
        with capture_logs() as logged:
            writer.write("ingest ended 5 times within 9 s, last: ingest exited with 1")
            wait_for(lambda: [each["event"] for each in logged] == ["crash_loop_not_written_yet"])
    finally:
        database.run("ALTER TABLE away RENAME TO operator_event")
    wait_for(lambda: database.rows("SELECT id FROM operator_event"))
    writer.close()

    (event,) = cli.json("events")
    assert ("crash_loop", None) == (event["kind"], event["tenant"])
    assert datetime.now(UTC) - datetime.fromisoformat(event["at"]) < timedelta(minutes=5)
    (found,) = cli.json("status", "--over", 0)
    assert {"ingest": event["detail"]} == of_kind(found, "crash_loop")


def test_watching_shows_it_again_and_again_until_ctrl_c(troubled, monkeypatch) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", nap)
    watched = troubled.run("status", "--watch", "--json", "--over", "0.5")
    naps.clear()
    plain = troubled.run("status", "--watch")

    assert (0, 0) == (watched.exit_code, plain.exit_code)
    first, second = map(json.loads, watched.stdout.splitlines())
    assert (None, True) == (first["measured_seconds"], second["measured_seconds"] is not None)
    assert 2 == plain.stdout.count("TROUBLE        endpoint acme/gone")
    assert [2.0, 2.0] == naps


@contextmanager
def terminal() -> Iterator[tuple[io.TextIOWrapper, Callable[[], str]]]:
    """A terminal to write to until the block ends, and a function that then gives what it was sent."""
    ours, theirs = os.openpty()
    sent: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # EIO: the other side is closed
            while piece := os.read(ours, 65536):
                sent.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with io.TextIOWrapper(os.fdopen(theirs, "wb", 0), write_through=True) as stdout:
        yield stdout, lambda: b"".join(sent).decode()
    reader.join(30)
    os.close(ours)


def test_on_a_terminal_it_is_drawn_in_place_with_the_troubles_first(troubled, monkeypatch) -> None:
    (found,) = troubled.json("status", "--over", 0)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)

    def stop(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", stop)
    with terminal() as (stdout, said):
        monkeypatch.setattr(sys, "stdout", stdout)
        live.keep_showing(lambda: found, lines, 1.0, as_json=False)
        monkeypatch.undo()
    drawn = said()

    assert drawn.index("TROUBLE        endpoint acme/gone") < drawn.index("route  ")
    assert "Ctrl-C ends this" in drawn
