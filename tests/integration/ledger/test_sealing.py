"""The sealer: what it publishes, where it goes on after a crash, and what it refuses."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from ops.errors import PlaceAway
from ops.runtime.db import transaction
from ops.runtime.places import Place
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint
from pipeline.ledger.judge import Outside, Refused
from pipeline.ledger.notes import Signer, sign
from pipeline.store.log.checkpoints import OpenLog
from support.ledger.growing import add_log
from support.ledger.sealed_log import BASE, Log
from support.net.s3 import make_bucket, variables
from support.waiting import wait_for
from workers.sealer.anchor import Contradicted, Known
from workers.sealer.board import Board
from workers.sealer.sealing import NoKey
from workers.sealer.worker import Sealer
from workers.sealer.write_once import WriteOnce


@pytest.fixture
def log(database, sealer_engine, tmp_path) -> Log:
    return Log(database, sealer_engine, Place(str(tmp_path / "published")), add_log(database))


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(Refused) as raised:
        work()
    return raised.value.kind


def test_a_log_is_published_as_it_grows_and_its_first_key_is_made(log) -> None:
    for count in (3, 300, 253, 700):
        log.grow(count)
        assert log.seal()
        log.check()

    assert not log.seal()
    assert 1 == len(log.keys())
    assert [(3,), (303,), (556,), (1256,)] == log.database.rows("SELECT size FROM checkpoint ORDER BY size")
    assert not list(Path(log.place.where).rglob("tile/0/001.p")), "full tiles replace incomplete ones"


def test_a_log_in_s3_is_published_as_one_in_a_folder(log, s3, monkeypatch) -> None:
    for name, value in variables(s3).items():
        monkeypatch.setenv(name, value)
    log.place = Place(make_bucket(s3))
    for count in (300, 400):
        log.grow(count)
        assert log.seal()
        log.check()


def test_an_anchor_in_s3_never_overwrites_what_it_has(s3, monkeypatch) -> None:
    for name, value in variables(s3).items():
        monkeypatch.setenv(name, value)
    bucket = make_bucket(s3)
    anchor = WriteOnce(bucket)

    def known(size: int, root: bytes) -> Known:
        checkpoint = Checkpoint(f"{BASE}/acme", size, root)
        note = sign(checkpoint.text, [Signer(f"{BASE}/acme", bytes(32))])
        return Known(OpenLog(1, "acme", 1, size, b""), checkpoint, note, 0, bytes)

    assert anchor.look(known(9, b"a" * 32)) is None
    for size in (9, 1200):
        assert (b"", []) == anchor.take(known(size, b"a" * 32))
        assert (b"", []) == anchor.take(known(size, b"a" * 32))
    with pytest.raises(Contradicted):
        anchor.take(known(9, b"b" * 32))
    seen = anchor.look(known(5, b"a" * 32))
    place = Place(bucket)
    assert timedelta() < datetime.now(UTC) - place.written_at(f"acme/r1/{9:020}") + timedelta(seconds=2) < timedelta(minutes=5)
    assert place.written_at(f"acme/r1/{10:020}") is None
    assert (1200, b"a" * 32) == (seen.size, seen.root)


def test_the_private_key_is_encrypted_and_the_sealer_adds_no_second_one(log) -> None:
    log.grow(1)
    log.seal()

    ((private,),) = log.database.rows("SELECT private FROM log_key")
    assert 32 == len(log.database.vault.decrypt(bytes(private)))
    with pytest.raises(Exception, match="only the owner"), transaction(log.engine) as conn:
        conn.exec_driver_sql(f"INSERT INTO log_key (log_id, public, private) VALUES ({log.id}, '\\x{'00' * 32}', 'x')")
    for statement in ("UPDATE log_key SET state = 'retired'", "DELETE FROM log_key", "DELETE FROM checkpoint"):
        with pytest.raises(Exception, match="permission denied"), transaction(log.engine) as conn:
            conn.exec_driver_sql(statement)
    with pytest.raises(psycopg.Error, match="only ever retired"):
        log.database.run("UPDATE log_key SET public = %s", b"x" * 32)


def test_nothing_is_published_with_a_private_key_that_is_not_the_public_ones(log) -> None:
    log.grow(1)
    log.seal()
    raw = log.files.checkpoint()
    with log.database.connect() as conn:
        conn.execute("ALTER TABLE log_key DISABLE TRIGGER ALL")
        conn.execute("UPDATE log_key SET private = %s", [log.database.vault.encrypt(b"x" * 32)])
    log.grow(1)

    assert "checkpoint" == refused(log.seal)
    assert raw == log.files.checkpoint()


def test_all_active_keys_sign_and_a_log_without_one_is_not_sealed(log) -> None:
    log.grow(1)
    log.seal()
    private = bytes(range(32))
    public = Signer("x", private).key.public
    encrypted = log.database.vault.encrypt(private)
    log.database.run("INSERT INTO log_key (log_id, public, private) VALUES (%s, %s, %s)", log.id, public, encrypted)
    log.grow(1)
    log.seal()

    old, new = log.keys()
    raw = log.files.checkpoint()
    for key in (old, new):
        assert 2 == open_checkpoint(raw, [key])[0].size

    log.database.run("UPDATE log_key SET state = 'retired'")
    log.grow(1)
    with pytest.raises(NoKey, match="log key acme --new"):
        log.seal()


class Killed(BaseException):
    """The process ends here."""


class Dying(Place):
    """A place at which the process ends before, or after, the nth write of a file's bundle."""

    def __init__(self, place: Place, at: int, *, after: bool) -> None:
        super().__init__(place.where)
        self.left, self.after = at, after

    def write(self, files) -> None:
        if self.left == 0 and not self.after:
            raise Killed
        super().write(files)
        if self.left == 0:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [0, 1])
def test_a_sealer_that_dies_in_any_step_of_publishing_is_completed_by_the_next(log, at: int, after: bool) -> None:
    log.grow(300)
    with pytest.raises(Killed):
        log.seal(place=Dying(log.place, at, after=after))
    log.seal()
    log.check()
    log.grow(300)
    with pytest.raises(Killed):
        log.seal(place=Dying(log.place, at, after=after))
    if at == 0:
        assert 300 == log.published().size, "the checkpoint is written last"
    log.grow(1)
    log.seal()

    log.check()


@pytest.mark.parametrize("step", ["keep", "add", "grown"])
def test_a_sealer_that_dies_between_its_statements_is_completed_by_the_next(log, step: str, monkeypatch) -> None:
    from workers.sealer import sealing

    def die(*_: object, **__: object) -> None:
        raise Killed

    log.grow(10)
    with monkeypatch.context() as patch:
        patch.setattr({"keep": sealing.checkpoints, "add": sealing.anchors}.get(step, sealing), step, die)
        with pytest.raises(Killed):
            log.seal()
    log.seal()

    log.check()
    assert 1 == len(log.keys())


def older(log, path: Path) -> Path:
    """A copy of what is published now."""
    return Path(shutil.copytree(log.place.where, path))


def test_a_database_that_is_older_than_what_was_published_is_refused_whatever_it_holds(log, tmp_path) -> None:
    log.grow(400)
    log.seal()
    other = older(log, tmp_path / "later")
    log.database.run("CREATE TABLE saved AS SELECT * FROM log")
    log.grow(10)
    log.seal()
    later = Place(log.place.where)

    # Restored: the log is at 400 leaves again, and all that its tables say of checkpoints is of then.
    log.place = Place(str(other))
    board = Board()
    board.saw(log.id, Outside("anchor", 411, None))
    assert "smaller" == refused(lambda: log.seal(board=board))
    assert later.read("acme/checkpoint") is not None


def test_a_missing_a_foreign_and_a_wrongly_signed_checkpoint_are_refused(log) -> None:
    log.grow(400)
    log.seal()
    raw = log.files.checkpoint()
    path = Path(log.place.where) / "acme" / "checkpoint"
    for content in (b"", b"what is this", raw.replace(b"\n400\n", b"\n399\n"), raw.replace(b"acme\n", b"other\n", 1)):
        path.write_bytes(content)
        assert "checkpoint" == refused(log.seal)
    path.write_bytes(raw.replace(b"\n400\n", b"\n401\n"))
    assert "smaller" == refused(log.seal)
    path.unlink()
    assert "missing" == refused(log.seal)
    path.write_bytes(raw)
    later = path.parent / "r2" / "checkpoint"
    later.parent.mkdir()
    later.write_bytes(b"of the next incarnation")
    assert "incarnation" == refused(log.seal)


def test_damaged_tiles_are_published_again(log) -> None:
    log.grow(600)
    log.seal()
    shutil.rmtree(Path(log.place.where) / "acme" / "tile")
    log.grow(1)
    log.seal()

    log.check()


def test_a_place_that_is_away_is_tried_again_and_loses_nothing(log, monkeypatch) -> None:
    log.grow(300)
    with socket_that_never_answers() as address:
        for name, value in variables(address).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(PlaceAway):
            log.seal(place=Place("s3://bucket", 0.3))
    log.seal()

    log.check()


@contextmanager
def socket_that_never_answers() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_long_log_is_sealed_without_keeping_it(log) -> None:
    log.grow(12_000)
    log.seal()

    log.check()


# --- The process's turns


def test_the_sealer_alarms_goes_on_refusing_and_seals_the_other_logs(log) -> None:
    log.database.add_tenant("acme")
    board = Board()
    sealer = Sealer(log.engine, log.sealing(board=board), board)
    log.grow(300)
    sealer.turn()
    log.check()
    other = Log(log.database, log.engine, log.place, add_log(log.database, "other"), "other")
    other.grow(5)

    path = Path(log.place.where) / "acme" / "checkpoint"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n300\n", b"\n500\n"))
    log.grow(1)
    for _ in range(2):
        sealer.turn()

    other.check()
    assert [("smaller",)] == log.database.rows("SELECT kind FROM log_refusal")
    ((detail,),) = log.database.rows("SELECT detail FROM operator_event WHERE kind = 'log_refused' AND tenant = 'acme'")
    assert "has a checkpoint of size 500" in detail
    assert "waxseal log new-origin acme" in detail
    assert ["other"] == [each.log.tenant for each in board.published()]

    path.write_bytes(whole)  # somebody had put a wrong file there, and takes it away
    log.grow(1)
    sealer.turn()
    log.check()
    assert [] == log.database.rows("SELECT * FROM log_refusal")
    sealer.close()


def test_one_sealer_seals_and_another_takes_over(log) -> None:
    first, second = (Sealer(log.engine, log.sealing(), Board()) for _ in range(2))
    log.grow(3)
    first.turn()
    log.grow(3)
    second.turn()
    assert 3 == log.published().size
    first.close()
    wait_for(lambda: second.turn() or log.published().size == 6)
    second.close()

    log.check()
