"""Sealers beside each other, killed and frozen: never two checkpoints of one size, and never an older one after a newer."""

import random
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader

from ops.runtime.db import make_engine
from ops.runtime.places import Patience, Place, _Folder
from pipeline.ledger.checkpoint import open_checkpoint
from pipeline.ledger.merkle import tree_root
from pipeline.ledger.notes import Signer
from pipeline.ledger.tiles import TileReader
from support.emptying import empty
from support.ledger.growing import add_log
from support.ledger.sealed_log import Log
from support.net.freezing import frozen
from support.net.s3 import make_bucket, variables
from support.waiting import wait_for
from workers.sealer import worker
from workers.sealer.board import Board
from workers.sealer.lead import Lead
from workers.sealer.worker import Sealer

LEAD = (
    "SELECT pid FROM pg_locks JOIN pg_database ON oid = database WHERE locktype = 'advisory' AND datname = current_database()"
)


@pytest.fixture
def database(shared_database: Any) -> Iterator[Any]:
    yield shared_database
    empty(shared_database)


@pytest.fixture(scope="module")
def sealer_engine(shared_database: Any) -> Iterator[Engine]:
    engine = make_engine(shared_database.sealer_url, pool_size=6)
    yield engine
    engine.dispose()


@pytest.fixture
def log(database, sealer_engine, tmp_path) -> Log:
    return Log(database, sealer_engine, Place(str(tmp_path / "published")), add_log(database))


def sealer_of(log: Log, place: Place | None = None, **options: Any) -> Sealer:
    board = Board()
    return Sealer(log.engine, log.sealing(place, board), board, **options)


def lead_soon_lost() -> None:
    """In the process that is started: a leader that stands still for a second and a half loses the lead."""
    Lead.__init__.__defaults__ = (1.5,)


def judged_by_others(log: Log, seen: list[tuple[int, bytes]]) -> None:
    """What is published is right by another's implementation, and continues everything that was ever published or signed."""
    folder = Path(log.place.where) / log.tenant
    reader = TilesReader(LocalBackend(folder))
    size = reader.get_checkpoint().size
    reader.set_size(size)
    assert reader.calculate_root_hash() == log.published().root
    node = TileReader(lambda path: (folder / path).read_bytes(), size).node
    kept = [(each, bytes(root)) for each, root in log.database.rows("SELECT size, root FROM checkpoint ORDER BY size")]
    assert kept == [(each, tree_root(each, node)) for each, _ in kept]
    assert set(seen) <= set(kept)
    assert sorted(each for each, _ in seen) == [each for each, _ in seen], "an older checkpoint was published after a newer one"


class Watched:
    """Notes each checkpoint that is published, as a reader would who asks all the time."""

    def __init__(self, log: Log) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self._log = log
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._path = Path(log.place.where) / log.tenant / "checkpoint"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def size(self) -> int:
        return self.seen[-1][0] if self.seen else 0

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            try:
                found = open_checkpoint(self._path.read_bytes(), self._log.keys())[0]
            except FileNotFoundError:
                continue
            if not self.seen or self.seen[-1] != (found.size, found.root):
                self.seen.append((found.size, found.root))


def test_sealers_that_are_killed_at_any_moment_or_frozen_publish_one_history(log, shared_start) -> None:
    moments = random.Random(7)
    settings = {"log_files": log.place.where, "log_every": 0.1}
    log.grow(1)
    with Watched(log) as watched:
        for kill in range(5):
            process = shared_start("sealer", **settings)
            if kill:
                threading.Event().wait(moments.uniform(0.0, 0.4))
            else:
                wait_for(lambda: watched.size)
            log.grow(moments.choice([1, 40, 300]))
            threading.Event().wait(moments.uniform(0.0, 0.15))
            process.kill()
            process.wait(10)
        first = shared_start("sealer", before=lead_soon_lost, **settings)
        wait_for(lambda: watched.size == log.row.size)
        second = shared_start("sealer", before=lead_soon_lost, **settings)
        for stopped in (first, second):
            log.grow(260)
            stopped.send_signal(signal.SIGSTOP)
            log.grow(3)
            wait_for(lambda: watched.size == log.row.size)
            stopped.send_signal(signal.SIGCONT)
        for process in (first, second):
            process.terminate()
            assert 0 == process.wait(20)
    log.check()
    judged_by_others(log, watched.seen)
    assert [] == log.database.rows("SELECT kind FROM log_refusal")
    assert [] == log.database.rows("SELECT detail FROM operator_event")
    assert 1 == len(log.keys())


def test_a_folder_that_another_sealer_deletes_meanwhile_costs_one_more_turn(log, monkeypatch) -> None:
    """A process that stood still in a write goes on when the tiles it writes were outgrown, and their folder deleted."""
    sealer = sealer_of(log)
    log.grow(3)
    whole = _Folder._fresh

    def outgrown(folder: _Folder, path: Path, content: bytes) -> Path:
        fresh = whole(folder, path, content)
        shutil.rmtree(path.parent)
        return fresh

    with monkeypatch.context() as patch:
        patch.setattr(_Folder, "_fresh", outgrown)
        sealer.turn()
        assert "cannot write" in (sealer.trouble or "")
    sealer.turn()
    log.check()
    sealer.close()


class Blocking(Place):
    """A place at which the process stands still before it writes files whose names hold `written`, or reads one of those."""

    def __init__(self, place: Place, written: str = "-", read: str = "-") -> None:
        super().__init__(place.where)
        self.written, self.asked, self.reached, self.go = written, read, threading.Event(), threading.Event()

    def write(self, files) -> None:
        self._wait(any(self.written in name for name in files))
        super().write(files)

    def read(self, name) -> bytes | None:
        self._wait(self.asked in name)
        return super().read(name)

    def _wait(self, here: bool) -> None:
        if here:
            self.reached.set()
            assert self.go.wait(30)


@pytest.mark.parametrize("where", [{"written": "tile"}, {"read": "checkpoint"}])
def test_a_sealer_that_has_lost_the_lead_publishes_nothing_more_and_raises_no_alarm(log, where) -> None:
    place = Blocking(log.place, **where)
    first, second = sealer_of(log, place), sealer_of(log)
    log.grow(3)
    late = threading.Thread(target=first.turn)
    late.start()
    assert place.reached.wait(30)
    log.database.run(f"SELECT pg_terminate_backend(pid) FROM ({LEAD}) AS lead")
    log.grow(4)
    wait_for(lambda: second.turn() or log.database.rows("SELECT FROM checkpoint WHERE size = 7"))
    place.go.set()
    late.join()

    log.check()
    assert [] == log.database.rows("SELECT detail FROM operator_event")
    second.close()
    first.close()


def test_the_lead_of_a_sealer_that_stands_still_ends(log) -> None:
    lead = Lead(log.engine, 0.2)
    assert lead.take()
    fence = lead.fence()
    lead._keeping.close()  # its process stands still
    wait_for(lambda: not log.database.rows(LEAD))
    with pytest.raises(Exception, match="may seal"):
        fence()
    assert lead.take(), "it goes on when nobody else leads"
    with pytest.raises(Exception, match="may seal"):
        fence()  # of what it had begun before, something else may be published now
    lead.fence()()
    lead.release()


def test_what_was_published_of_a_log_at_rest_is_looked_at_again(log, monkeypatch) -> None:
    """A process that stood still just before it replaced the checkpoint does so when it goes on, whatever it checked before."""
    monkeypatch.setattr(worker, "AGAIN", 0.0)
    path = Path(log.place.where) / log.tenant / "checkpoint"
    sealer = sealer_of(log)
    log.grow(300)
    sealer.turn()
    old = path.read_bytes()
    log.grow(300)
    sealer.turn()
    path.write_bytes(old)
    sealer.turn()
    log.check()

    path.unlink()
    sealer.turn()
    assert [("missing",)] == log.database.rows("SELECT kind FROM log_refusal")
    sealer.close()


def test_a_log_that_is_far_behind_holds_up_no_other(log) -> None:
    other = Log(log.database, log.engine, log.place, add_log(log.database, "zeta"), "zeta")
    place = Blocking(log.place, "acme/")
    sealer = sealer_of(log, place, far=100)
    log.grow(101)
    for count in (1, 99):
        other.grow(count)
        sealer.turn()
        other.check()
    assert place.reached.wait(30)
    assert log.files.checkpoint() is None
    assert REGISTRY.get_sample_value("waxseal_log_unsealed_age_seconds") > 0
    place.go.set()
    wait_for(lambda: sealer.turn() or log.files.checkpoint())
    log.grow(300)
    wait_for(lambda: sealer.turn() or log.published().size == 401)

    log.check()
    other.check()
    wait_for(lambda: sealer.turn() or REGISTRY.get_sample_value("waxseal_log_unsealed_age_seconds") == 0)
    sealer.close()


def test_the_sealer_leaves_a_log_that_is_far_behind_when_it_does_not_lead_any_more(log) -> None:
    place = Blocking(log.place, "acme/")
    sealer = sealer_of(log, place, far=100)
    log.grow(101)
    sealer.turn()
    assert place.reached.wait(30)
    sealer.close()
    place.go.set()

    wait_for(lambda: not [each for each in threading.enumerate() if each.name == "lane"])
    assert log.files.checkpoint() is None
    sealer.turn()
    wait_for(lambda: sealer.turn() or log.files.checkpoint())
    log.check()
    sealer.close()


def test_new_and_retired_keys_take_effect_on_a_log_at_rest(log) -> None:
    sealer = sealer_of(log)
    log.grow(5)
    sealer.turn()
    cosigned = f"{log.files.checkpoint().decode()}— witness.example/w bGluZSBvZiBhIHdpdG5lc3M=\n"
    (Path(log.place.where) / "acme" / "checkpoint").write_text(cosigned)
    private = bytes(range(32))
    added = (log.id, Signer("x", private).key.public, log.database.vault.encrypt(private))
    log.database.run("INSERT INTO log_key (log_id, public, private) VALUES (%s, %s, %s)", *added)
    sealer.turn()
    old, new = log.keys()
    raw = log.files.checkpoint()
    assert (5, 5) == tuple(open_checkpoint(raw, [key])[0].size for key in (old, new))
    assert raw.startswith(cosigned.partition("\n\n")[0].encode()), "the text is the same, and so is the checkpoint"
    assert b"witness.example/w" in raw

    log.database.run("UPDATE log_key SET state = 'retired' WHERE public = %s", old.public)
    sealer.turn()
    raw = log.files.checkpoint()
    assert 5 == open_checkpoint(raw, [new])[0].size
    with pytest.raises(Exception, match="no key"):
        open_checkpoint(raw, [old])
    assert b"witness.example/w" in raw
    assert [(5, cosigned.partition("— witness")[0])] == log.database.rows("SELECT size, note FROM checkpoint")
    stamp = (Path(log.place.where) / "acme" / "checkpoint").stat().st_mtime_ns
    sealer.turn()
    assert stamp == (Path(log.place.where) / "acme" / "checkpoint").stat().st_mtime_ns, "nothing is written again"
    assert [] == log.database.rows("SELECT kind FROM log_refusal")
    sealer.close()


def test_the_cosignatures_of_all_witnesses_are_published_as_they_come(log) -> None:
    sealing = log.sealing(board=(board := Board()))
    sealer = Sealer(log.engine, sealing, board)
    log.grow(3)
    sealer.turn()
    signed = log.files.checkpoint().decode()
    lines = [f"— witness.example/w{number} bGluZSBvZiBhIHdpdG5lc3M=\n" for number in range(3)]
    for count in (1, 2, 3):
        board.cosigned(log.id, 3, lines[count - 1 : count])
        for _ in range(2):
            sealer.turn()
            assert signed + "".join(lines[:count]) == log.files.checkpoint().decode()
    log.check()
    log.grow(1)
    sealer.turn()
    assert "witness" not in log.files.checkpoint().decode()
    sealer.close()


def test_a_place_that_hangs_costs_a_turn_one_wait_and_the_heart_beats(log, s3, monkeypatch) -> None:
    for name, value in variables(s3).items():
        monkeypatch.setenv(name, value)
    bucket = make_bucket(s3)
    logs = [log, *(Log(log.database, log.engine, log.place, add_log(log.database, f"t{n}"), f"t{n}") for n in range(5))]
    beats = []
    sealer = sealer_of(log, Place(bucket, 2.5, beat=lambda: beats.append(1)))
    monkeypatch.setattr(worker, "Patience", lambda: Patience(2.0))
    for each in logs:
        each.place = Place(bucket)
        each.grow(2)
    sealer.turn()
    for each in logs:
        each.check()
        each.grow(300)
    with frozen(server_pid(s3)):
        began = len(beats)
        sealer.turn()
        assert re.search("did not read within|cannot read", sealer.trouble or ""), "by our deadline or by the client's own"
        assert 2 == len(beats) - began, "one call hung, and all the while the heart beat"
    wait_for(lambda: sealer.turn() or sealer.trouble is None)
    for each in logs:
        each.check()
    sealer.close()


def server_pid(address: str) -> int:
    port = int(address.rpartition(":")[2])
    return next(each.pid for each in psutil.net_connections("tcp") if each.laddr.port == port and each.status == "LISTEN")
