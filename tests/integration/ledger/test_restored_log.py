"""Yesterday's database, restored: the sealer refuses and alarms, recording goes on, and a new incarnation begins."""

import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import make_url

from ops.runtime.db import make_engine, transaction
from ops.runtime.places import Place
from ops.runtime.published_log import PublishedLog
from pipeline.ledger.checkpoint import open_checkpoint, read_checkpoint
from pipeline.ledger.notes import read_vkey, split_note
from pipeline.ledger.sequence import sequence
from pipeline.ledger.tiles import decode_entries
from pipeline.store.log.checkpoints import OpenLog
from schemas.config.anchors import AnchorPlace
from support.cli import Cli
from support.ledger.events import event_of, record
from support.net.tsa import time_stamping
from support.net.witness import Witness, served
from support.pages import commands
from support.waiting import wait_for
from workers.sealer.anchoring import Anchoring, Anchorings
from workers.sealer.board import Board
from workers.sealer.log_server import LogServer
from workers.sealer.sealing import Sealing
from workers.sealer.time_stamps import TimeStamps
from workers.sealer.witnesses import Witness as WitnessAnchor
from workers.sealer.worker import Sealer
from workers.sealer.write_once import WriteOnce

KEY = b"k" * 32
ORIGIN = "ledger.example"


class System:
    """A database with a tenant, its writers, its sequencer and its sealer, which publish at `place`."""

    def __init__(self, database, place: Path, anchors: list = ()) -> None:
        self.database, self.place = database, Place(str(place))
        self.writer = make_engine(database.worker_url, pool_size=2)
        self.engine = make_engine(database.sealer_url, pool_size=6)
        self.board = Board()
        made = [Anchoring(setting, anchor, self.engine, self.board, self._files) for setting, anchor in anchors]
        self.anchorings = Anchorings(made)
        first_look = self.anchorings.first_look
        self.sealing = Sealing(self.engine, self.place, ORIGIN, database.vault, self.board, first_look)
        self.sealer = Sealer(self.engine, self.sealing, self.board)
        self.cli = Cli(database, log_files=place, log_origin=ORIGIN).owner

    def _files(self, log: OpenLog) -> PublishedLog:
        return PublishedLog(self.place, log.tenant, log.incarnation)

    def record(self, count: int, subject: str, first: int = 0) -> None:
        numbers = range(first, first + count)
        record(self.writer, *(event_of(KEY, "acme", subject, f"{subject}-{n}") for n in numbers), now=datetime.now(UTC))
        self.position()

    def position(self) -> None:
        with transaction(self.engine) as conn:
            sequence(conn, "acme")

    def refusals(self) -> list[tuple]:
        return self.database.rows("SELECT kind, detail FROM log_refusal")

    def checkpoint(self, incarnation: int = 1) -> tuple[int, bytes]:
        raw = self.place.read("acme/checkpoint" if incarnation == 1 else f"acme/r{incarnation}/checkpoint")
        vkeys = [each["vkey"] for each in self.cli.json("log", "key", "acme")]
        found, _ = open_checkpoint(raw, map(read_vkey, vkeys))
        return found.size, found.root

    def close(self) -> None:
        self.sealer.close()
        self.anchorings.close()
        self.writer.dispose()
        self.engine.dispose()
        self.database.close()


@pytest.fixture
def restored(servers, database) -> Iterator[object]:
    """Makes a copy of the database as it is, as a backup and its restore do."""
    made = []

    def restore() -> object:
        name = make_url(database.url).database
        with psycopg.connect(servers.database_url, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            conn.execute(f"CREATE DATABASE {name}_restored TEMPLATE {name} STRATEGY file_copy")
        urls = [make_url(url).set(database=f"{name}_restored") for url in (database.url, database.worker_url)]
        made.append(type(database)(*(url.render_as_string(hide_password=False) for url in urls), database.key))
        return made[-1]

    yield restore
    for each in made:
        each.close()
        with psycopg.connect(servers.database_url, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {make_url(each.url).database} WITH (FORCE)")


def test_yesterdays_database_is_refused_recording_goes_on_and_a_new_origin_begins(database, restored, tmp_path) -> None:
    database.add_tenant("acme")
    published = tmp_path / "published"
    today = System(database, published)
    today.record(300, "a")
    today.sealer.turn()
    assert (300,) == today.checkpoint()[:1]
    today.close()
    yesterday = restored()
    today = System(database, published)
    today.record(20, "b")
    today.sealer.turn()
    lost = today.checkpoint()
    today.close()

    system = System(yesterday, published)
    system.sealer.turn()
    ((kind, detail),) = system.refusals()
    assert "smaller" == kind
    assert "waxseal log new-origin acme" in detail
    assert [("log_refused",)] == yesterday.rows("SELECT kind FROM operator_event")
    assert 1 == REGISTRY.get_sample_value("waxseal_log_refused")
    system.record(400, "c")  # grown beyond what was published, and another tree all the same
    system.sealer.turn()
    assert "inconsistent" == system.refusals()[0][0]
    system.sealer.turn()
    assert REGISTRY.get_sample_value("waxseal_log_unsealed_age_seconds") > 0
    assert 700 == yesterday.rows("SELECT count(*) FROM entry")[0][0]
    assert lost == (320, today_root(published))
    assert 1 == system.cli.run("log", "status").exit_code
    assert "REFUSED" in system.cli.output("log", "status", code=1)

    planned = system.cli.output("log", "new-origin", "acme")
    assert (
        "ledger.example/acme was published up to size 320; this database knows it up to size 300: of the 20 leaves" in planned
    )
    assert "ledger.example/acme/r2 begins" in planned
    assert "Nothing was done" in planned
    assert 1 == yesterday.rows("SELECT count(*) FROM log")[0][0]
    assert "2 chains wait" in system.cli.output("log", "new-origin", "acme", "--yes")
    system.position()
    system.sealer.turn()

    assert [] == system.refusals()
    assert 701 == system.checkpoint(2)[0]
    assert lost == (320, today_root(published)), "the old log's files stay as they are"
    (status,) = [each for each in system.cli.json("log", "status") if each["incarnation"] == 2]
    assert (701, 701, None) == (status["size"], status["published"]["size"], status["refused"])
    first = decode_entries(Place(str(published)).read("acme/r2/tile/entries/000"), 256)[0]
    assert "origin" == json.loads(first)["kind"]
    ((body,),) = yesterday.rows(
        "SELECT body FROM content JOIN entry USING (chain_id, seq) WHERE kind = 'origin' AND subject = 'waxseal.origin'"
    )
    assert {"origin": "ledger.example/acme", "root": lost[1].hex(), "size": 320} == json.loads(bytes(body))
    third(system, published)
    system.close()


def today_root(published: Path) -> bytes:
    return read_checkpoint(split_note((published / "acme" / "checkpoint").read_bytes())[0]).root


def third(system: System, published: Path) -> None:
    """Another one follows it, whose first leaf is of a chain of its own."""
    assert "/r2 was published up to size 701; all of it is in this" in system.cli.output("log", "new-origin", "acme", "--yes")
    system.position()
    system.sealer.turn()

    assert 702 == system.checkpoint(3)[0]
    first = decode_entries(Place(str(published)).read("acme/r3/tile/entries/000"), 256)[0]
    assert ("origin", 0) == (json.loads(first)["kind"], json.loads(first)["seq"])


def test_anchors_remember_what_was_restored_together_with_the_database(database, restored, tmp_path) -> None:
    """The published files were on the same disk, and are yesterday's too."""
    database.add_tenant("acme")
    with served(Witness()) as witness:
        names = [AnchorPlace("folder", str(tmp_path / "worm"), 0.0), AnchorPlace("witness", witness.url, 0.0)]

        def anchors() -> list:
            return [(names[0], WriteOnce(names[0].place)), (names[1], WitnessAnchor(witness.url, witness.key.vkey))]

        today = System(database, tmp_path / "one", anchors())
        today.record(5, "a")
        today.sealer.turn()
        keys = [read_vkey(each["vkey"]) for each in today.cli.json("log", "key", "acme")]
        today.close()
        yesterday = restored()
        (tmp_path / "two" / "acme").mkdir(parents=True)
        for path in (tmp_path / "one").rglob("*"):
            if path.is_file():
                copy = tmp_path / "two" / path.relative_to(tmp_path / "one")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        witness.trust(*keys)
        today = System(database, tmp_path / "one", anchors())
        today.record(3, "b")
        today.sealer.turn()
        wait_for(lambda: database.rows("SELECT count(DISTINCT kind) FROM anchor WHERE size = 8") == [(2,)])
        today.sealer.turn()
        assert witness.name in (tmp_path / "one" / "acme" / "checkpoint").read_text(), "its cosignature is published"
        today.close()

        for kept in ([], [1], [0]):  # both anchors, one of them
            chosen = [each for number, each in enumerate(anchors()) if not kept or number in kept]
            system = System(yesterday, tmp_path / "two", chosen)
            system.sealer.turn()
            assert ["smaller"] == [kind for kind, _ in system.refusals()]
            assert 5 == system.checkpoint()[0]
            system.close()


def test_a_witness_that_only_says_that_it_knows_better_stops_nothing_and_alarms(database, tmp_path) -> None:
    database.add_tenant("acme")
    with served(Witness()) as witness:
        anchor = (AnchorPlace("witness", witness.url, 0.0), WitnessAnchor(witness.url, witness.key.vkey))
        system = System(database, tmp_path / "published", [anchor])
        system.record(5, "a")
        system.sealer.turn()
        witness.trust(*(read_vkey(each["vkey"]) for each in system.cli.json("log", "key", "acme")))
        witness.seen["ledger.example/acme"] = (900, b"x" * 32)  # as somebody on the way might answer
        system.record(3, "b")
        system.sealer.turn()
        wait_for(lambda: database.rows("SELECT FROM operator_event"))
        system.record(3, "c")
        system.sealer.turn()

        assert (11,) == system.checkpoint()[:1]
        assert [] == system.refusals()
        ((kind, detail),) = database.rows("SELECT kind, detail FROM operator_event")
        assert ("log_refused", True) == (kind, "it shows no checkpoint that says so. The log goes on" in detail)
        assert [] == database.rows("SELECT FROM anchor WHERE kind = 'witness'")

        path = Path(system.place.where) / "acme" / "checkpoint"
        path.write_bytes(path.read_bytes().replace(b"\n11\n", b"\n500\n"))
        system.record(1, "d")
        system.sealer.turn()
        assert ["smaller"] == [kind for kind, _ in system.refusals()]
        assert [(2,)] == database.rows("SELECT count(*) FROM operator_event"), "that is told too, in the same hour"
        system.close()


def test_an_anchor_that_is_away_stops_nothing_and_shows_as_missing(database, tmp_path) -> None:
    database.add_tenant("acme")
    with served(Witness()) as witness:
        witness.fail = 503
        system = System(
            database,
            tmp_path / "published",
            [(AnchorPlace("witness", witness.url, 0.0), WitnessAnchor(witness.url, witness.key.vkey))],
        )
        system.record(5, "a")
        system.sealer.turn()
        wait_for(lambda: witness.asked)
        assert 5 == system.checkpoint()[0]
        cli = system.cli.but(log_anchors=f"witness+{witness.url}#vkey={witness.key.vkey}")
        assert f"witness {witness.url}: MISSING" in cli.output("log", "status")
        system.close()


def test_a_time_stamp_is_published_and_openssl_verifies_it_as_the_page_says(database, tmp_path) -> None:
    database.add_tenant("acme")
    published = tmp_path / "published"
    (tmp_path / "tsa").mkdir()
    with time_stamping(tmp_path / "tsa") as authority:
        anchor = (AnchorPlace("rfc3161", authority.url, 0.0), TimeStamps(authority.url, str(authority.certificates)))
        system = System(database, published, [anchor])
        system.record(5, "a")
        system.sealer.turn()
        wait_for(lambda: database.rows("SELECT FROM anchor WHERE kind = 'rfc3161'"))
        system.sealer.close()
        system.anchorings.close()
        (receipt,) = published.glob("acme/timestamps/*.tsr")

        def verified() -> str:
            ((_, *words),) = [words for words in commands("openssl") if "-verify" in words]
            ours = {"tsa.pem": str(authority.certificates), "acme/timestamps/00000000000000000007": f"acme/timestamps/{5:020}"}
            ours |= {next(word for word in words if word.endswith(".tsr")): str(receipt.relative_to(published))}
            command = ["openssl", "ts", *(ours.get(word, word) for word in words)]
            ended = subprocess.run(command, cwd=published, capture_output=True, text=True, check=False, timeout=30)
            return ended.stdout + ended.stderr

        assert "Verification: OK" in verified()
        stamped = receipt.with_name(f"{5:020}")
        assert (5,) == (open_checkpoint(stamped.read_bytes(), map(read_vkey, vkeys_of(system)))[0].size,)
        shutil.rmtree(stamped.parent)  # the published files are those of a backup
        again = System(database, published, [anchor])
        again.sealer.turn()
        wait_for(receipt.exists)
        assert "Verification: OK" in verified()
        assert 1 == authority.stamps
        stamped.write_bytes(stamped.read_bytes().replace(b"acme", b"acne"))
        assert "Verification: FAILED" in verified()
        again.sealer.close()
        again.close()


def vkeys_of(system: System) -> list[str]:
    return [each["vkey"] for each in system.cli.json("log", "key", "acme")]


def test_keys_are_added_and_retired_one_at_a_time(database, tmp_path) -> None:
    database.add_tenant("acme")
    system = System(database, tmp_path / "published")
    assert "has no log yet" in system.cli.run("log", "key", "acme").stderr
    system.record(2, "a")
    assert "the sealer makes the first one" in system.cli.run("log", "key", "acme").stderr
    system.sealer.turn()
    (first,) = system.cli.json("log", "key", "acme")
    assert first["vkey"].startswith("ledger.example/acme+")
    assert "add another first" in system.cli.run("log", "key", "acme", "--retire", first["id"], "--yes").stderr
    (second,) = system.cli.json("log", "key", "acme", "--new")
    assert "permission denied" in system.cli.but(database_url=database.worker_url).run("log", "key", "acme", "--new").stderr
    system.record(2, "b")
    system.sealer.turn()
    raw = system.place.read("acme/checkpoint")
    for key in (first, second):
        assert 4 == open_checkpoint(raw, [read_vkey(key["vkey"])])[0].size

    system.cli.output("log", "key", "acme", "--retire", first["id"], "--yes")
    assert ["retired", "active"] == [each["state"] for each in system.cli.json("log", "key", "acme")]
    assert ["log key retire", "log key new"] == [each["act"] for each in system.cli.json("audit") if each["done"]]
    system.close()


def test_published_logs_are_served_as_static_files_and_nothing_else_is(tmp_path) -> None:
    stamp = f"acme/r2/timestamps/{7:020}.tsa-example-tsr.tsr"
    for name, content in {
        "acme/checkpoint": b"c",
        "acme/r2/checkpoint": b"d",
        "acme/tile/0/x001/067": b"t",
        stamp: b"s",
    }.items():
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "secret").write_text("s")
    (tmp_path / "log" / "acme" / "tile" / "0" / "000#1234").write_text("incomplete")
    with LogServer(tmp_path / "log", "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{base}/acme/tile/0/x001/067") as answer:
            assert (b"t", "application/octet-stream") == (answer.read(), answer.headers["Content-Type"])
            assert "immutable" in answer.headers["Cache-Control"]
        with urllib.request.urlopen(f"{base}/{stamp}") as answer:
            assert (b"s", "application/timestamp-reply") == (answer.read(), answer.headers["Content-Type"])
        with urllib.request.urlopen(f"{base}/acme/r2/checkpoint") as answer:
            assert (b"d", "text/plain; charset=utf-8") == (answer.read(), answer.headers["Content-Type"])
            assert "no-cache" == answer.headers["Cache-Control"]
        for path in ("/", "/secret", "/../secret", "/acme/../../secret", "/acme/%2e%2e/%2e%2e/secret", "//secret"):
            assert 404 == status_of(base + path)
        for path in (
            "/acme",
            "/acme/tile/0/000%231234",
            "/acme/tile/0/000",
            "/acme/checkpoint/",
            "/ACME/checkpoint",
            "/acme/timestamps/1",
            "/acme/timestamps/",
        ):
            assert 404 == status_of(base + path)
        assert 405 == status_of(urllib.request.Request(f"{base}/acme/checkpoint", b"x", method="POST"))
        server.shutdown()


def status_of(asked: object) -> int:
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(asked)
    return raised.value.code
