"""`waxseal backup` and `waxseal restore`: what a backup holds, what it refuses, and a system that goes on from one."""

import fcntl
import gzip
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import make_url

from ops.admin.backup import base_backup
from ops.admin.backup.blob_copies import copy_all
from ops.admin.doctor.archive_checks import check_archiving
from ops.errors import OpsError
from ops.runtime.blobs import Blobs, key_of
from ops.runtime.db import make_engine, transaction
from ops.runtime.places import Place
from ops.servers.accounts import own_folder, switch_to
from ops.servers.binaries import find_postgres
from ops.servers.child import stop, wait_ready
from ops.servers.ports import Claims
from ops.servers.postgres import postgres_child, postgres_url
from ops.servers.state_file import peek, recall
from ops.servers.wal_archive import archiving as archiving_
from ops.telemetry.collector import Broker, Collector
from pipeline.errors import BlobsAway
from pipeline.ledger.sequence import sequence
from pipeline.store.admin import server_facts
from support.cli import Cli
from support.ingest import running
from support.queues import depth, emptied, publish, put
from support.stack import here
from support.waiting import wait_for
from workers.amqp.definitions import definitions
from workers.amqp.dramatiq_broker import DELIVER_TOPOLOGY
from workers.sealer.board import Board
from workers.sealer.sealing import Sealing
from workers.sealer.worker import Sealer

BEFORE = [f"e-{n}" for n in range(5)]
AFTER = [f"e-{n}" for n in range(5, 9)]
ORIGIN = "ledger.example"


@pytest.fixture
def tmp_path(module_folder: Path) -> Path:
    """In memory, if there is enough: a backup of a database is unpacked as a thousand files."""
    return Path(tempfile.mkdtemp(dir=module_folder))


@pytest.fixture(scope="module")
def reader(servers, template) -> Iterator[str]:
    """The name and password of a login that may read and replicate, and nothing else."""
    with make_engine(servers.database_url).connect() as conn:
        run = conn.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql
        run("CREATE ROLE test_backup LOGIN REPLICATION PASSWORD 'test_backup' IN ROLE pg_read_all_data")
        yield "test_backup"
        run("DROP ROLE test_backup")


@pytest.fixture(scope="module")
def taken(servers, shared_database, reader, module_folder) -> Path:
    """A backup with two blobs, which tests copy before they damage it; the store is beside it."""
    folder = module_folder / "backup"
    folder.mkdir()
    blobs = Blobs(str(folder / "blobs"))
    for body in (b"a", b"b"):
        blobs.put("acme", body)
    assert 0 == backup_as(reader, shared_database, folder / "taken").exit_code
    return folder / "taken"


def backup_as(login: str, database: Any, folder: Path, *more: object) -> Any:
    url = make_url(database.url).set(username=login, password=login).render_as_string(hide_password=False)
    cli = Cli(database, blobs=folder.parent / "blobs", log_files=folder.parent / "published", log_origin=ORIGIN)
    return cli.but(database_url=url).run("backup", folder, *more)


class System:
    """The processes that the test needs, on one database: ingest while `recording`, sequencer and sealer when told."""

    def __init__(self, servers: Any, database: Any, channel: Any, folder: Path) -> None:
        self._amqp_url, self._database, self._channel, self._folder = servers.amqp_url, database, channel, folder

    def record(self, *names: str) -> None:
        with running(self._database, self._amqp_url, Blobs(str(self._folder / "blobs"))):
            publish(self._channel, *names)
            put(self._channel, "acme.orders", "large", b"x" * 300_000)
            wait_for(lambda: {*names, "large"} <= {*self.recorded()} and depth(self._channel) == 0)

    def recorded(self) -> list[str]:
        query = "SELECT convert_from(attributes, 'UTF8')::json->>'id' FROM content JOIN entry USING (chain_id, seq)"
        return [name for (name,) in self._database.rows(f"{query} WHERE kind = 'event'")]

    def seal(self) -> None:
        engine, board = make_engine(self._database.sealer_url), Board()
        with transaction(engine) as conn:
            sequence(conn, "acme")
        place = Place(str(self._folder / "published"))
        sealer = Sealer(engine, Sealing(engine, place, ORIGIN, self._database.vault, board), board)
        sealer.turn()
        sealer.close()
        engine.dispose()


@contextmanager
def postgres_of(data: Path, database: Any, archive: Path | None = None, name: str = "waxseal") -> Iterator[Any]:
    """The restored server, as `up` starts it, and its database with the logins of the tests."""
    memory = peek(data)
    port, password = memory.ports["postgres"], memory.passwords["postgres"]
    log = data / "log" / "postgres.log"
    postgres = postgres_child(memory.folder / "postgres", port, password, memory.account("postgres"), log, archive)
    postgres.start()
    try:
        wait_ready([postgres], 60)
        url = postgres_url(port, "waxseal", password, name)
        worker = make_url(url).set(username="test_worker", password="worker").render_as_string(hide_password=False)
        restored = type(database)(url, worker, database.key)
        yield restored
        restored.close()
    finally:
        stop([postgres], 30)


def test_a_folder_of_blobs_in_which_nothing_was_stored_need_not_be_there(tmp_path: Path) -> None:
    copied = copy_all(Blobs(str(tmp_path / "none")), [], tmp_path / "blobs", None, lambda _done: None)
    assert (0, []) == (copied.count, copied.faults)

    with pytest.raises(BlobsAway):
        copy_all(Blobs(str(tmp_path / "none")), [("acme", "0" * 64)], tmp_path / "others", None, lambda _done: None)


@pytest.mark.slow
def test_what_was_recorded_after_the_backup_is_recorded_once_more_when_it_comes_again_and_nothing_twice(
    servers, database, channel, reader, tmp_path, data_folder
) -> None:
    database.add_tenant()
    database.add_source("orders", "amqp")
    old = System(servers, database, channel, tmp_path)
    old.record(*BEFORE)
    old.seal()
    taken = backup_as(reader, database, tmp_path / "monday")
    assert (0, "") == (taken.exit_code, taken.stderr.replace("copying the database …\ncopying the blobs …\n", ""))
    old.record(*AFTER)
    old.seal()
    publish(channel, "kept-by-the-broker")  # and acknowledged by nobody
    former = (tmp_path / "published" / "acme" / "checkpoint").read_bytes()
    assert f"{ORIGIN}/acme\n10\n".encode() == former[: former.index(b"10\n") + 3]

    cli = Cli(database, log_files=tmp_path / "published", log_origin=ORIGIN)
    said = cli.output("restore", tmp_path / "monday", "--data", data_folder, "--yes", "--by", "ops")

    assert f"{ORIGIN}/acme/r2 follows {ORIGIN}/acme, which was published up to size 10" in said
    assert "\nintact: 6 entries in 1 chain;" in said
    with postgres_of(data_folder, database) as restored:
        new = System(servers, restored, channel, tmp_path / "new")
        assert [*BEFORE, "large"] == sorted(new.recorded())
        for _ in range(2):
            new.record(*BEFORE, *AFTER)
        assert sorted([*BEFORE, *AFTER, "kept-by-the-broker", "large"]) == sorted(new.recorded())
        ours = cli.but(database_url=restored.url, blobs=data_folder / "blobs")
        assert "intact: 12 entries" in ours.output("verify", code=0)
        assert ["log new-origin", "restore"] == [each["act"] for each in ours.json("audit") if each["who"] == "ops"]
    emptied(channel)


@pytest.fixture
def archiving(servers, template, database, channel, data_folder) -> Iterator[Any]:
    """A copy of the tests' server that archives its write-ahead log in `archives`, beside its data, on its database."""
    memory = recall(data_folder / "old")
    memory.passwords["postgres"] = servers.memory.passwords["postgres"]
    memory.take_ports(("postgres",), Claims())
    account = memory.account("postgres")
    home = own_folder(memory.folder / "postgres", account)
    command = [find_postgres() / "pg_basebackup", "-D", home / "data", "-c", "fast", "-d", database.url]
    subprocess.run([*map(str, command)], check=True, **switch_to(account))
    with postgres_of(data_folder / "old", database, data_folder / "archives", make_url(database.url).database or "") as old:
        for unused in ("waxseal", template):  # they would be in each copy
            old.run(f"DROP DATABASE {unused}")
        emptied(channel)
        yield old
    emptied(channel)


def switch(database: Any) -> None:
    """Waits until the segment that is being written is archived."""
    # Without the record nothing may be there to switch, and the archiver, which waits after a failure, would not be woken.
    ((name,),) = database.rows("SELECT pg_walfile_name(pg_switch_wal()) FROM pg_create_restore_point('switched')")
    wait_for(lambda: database.rows("SELECT last_archived_wal >= %s FROM pg_stat_archiver", name) == [(True,)], 30)


@pytest.mark.slow
def test_a_system_is_restored_to_a_time_between_two_events_and_the_second_comes_back_from_the_broker(
    servers, archiving, channel, tmp_path, data_folder
) -> None:
    archiving.add_tenant()
    archiving.add_source("orders", "amqp")
    old = System(servers, archiving, channel, tmp_path)
    cli = Cli(archiving, blobs=tmp_path / "blobs", log_files=tmp_path / "published", log_origin=ORIGIN).owner
    (tmp_path / "blobs").mkdir()
    before = datetime.now(UTC).isoformat()
    assert "archives/" in cli.output("backup", tmp_path / "all" / "monday")
    old.record("first")
    ((between,),) = archiving.rows("SELECT clock_timestamp()")
    old.record("second")
    cli.output("backup", "point", "after-both")
    switch(archiving)
    switch(archiving)
    (archive,) = (data_folder / "archives").iterdir()
    it_is_seen_whether_the_archive_is_written(cli, archiving, archive)
    restoring = ("restore", tmp_path / "all" / "monday", "--data", data_folder / "new", "--until")

    said = cli.but(blobs=tmp_path / "none").output(*restoring, between.isoformat(), "--yes", code=1)

    assert "\nNOT intact, 1 fault: 2 entries in 1 chain;" in said
    assert "blobs that are missing: 1. Copy them from the old store, or from a later backup" in said
    with postgres_of(data_folder / "new", archiving, data_folder / "archives") as restored:
        new = System(servers, restored, channel, tmp_path / "new")
        assert ["first", "large"] == sorted(new.recorded())
        new.record("first", "second")
        assert ["first", "large", "second"] == sorted(new.recorded())
        switch(restored)
    assert 2 == len(list((data_folder / "archives").iterdir()))

    restoring = ("restore", tmp_path / "all" / "monday", "--data", data_folder / "newer", "--until")
    what_cannot_be_restored_is_refused(cli, restoring, archive, before, data_folder)
    old_backups_go_with_what_only_they_needed(cli, tmp_path / "all", archive)


def it_is_seen_whether_the_archive_is_written(cli: Cli, database: Any, archive: Path) -> None:
    def seen() -> tuple[object, ...]:
        collector.turn()
        with transaction(engine) as conn:
            checked = check_archiving(server_facts.archiving(conn))
        (status,) = cli.json("status", "--over", "0")
        troubles = [each["kind"] for each in status["troubles"] if each["kind"] == "archive"]
        assert str(archive) in checked.found
        return (
            checked.state,
            status["wal_archive"]["failing"],
            troubles,
            REGISTRY.get_sample_value("waxseal_wal_archive_failing"),
        )

    def behind() -> float:
        return REGISTRY.get_sample_value("waxseal_wal_archive_behind_bytes") or 0

    engine = make_engine(database.worker_url)
    collector = Collector(database.worker_url, Broker(dict, float, "q", "inbox"), lease=90.0)
    try:
        assert ("ok", False, [], 0) == seen()
        assert behind() < 2**24
        archive.rename(archive.with_name("away"))
        database.rows("SELECT pg_switch_wal() FROM pg_create_restore_point('more')")
        wait_for(lambda: database.rows("SELECT failed_count > 0 FROM pg_stat_archiver") == [(True,)], 30)
        assert ("wrong", True, ["archive"], 1) == seen()
        assert behind() >= 2**24
        archive.with_name("away").rename(archive)
        switch(database)
    finally:
        collector.close()
        engine.dispose()


def what_cannot_be_restored_is_refused(
    cli: Cli, restoring: tuple[object, ...], archive: Path, before: str, folder: Path
) -> None:
    refused = {
        "the backup ended at": cli.run(*restoring, before),
        "the archive ends with a transaction of": cli.run(*restoring, "2999-01-01"),
        "there is no restore point 'other'": cli.run(*restoring, "other"),
    }
    dry = cli.output(*restoring, "after-both", "--dry-run")
    latest = cli.output(*restoring, "latest")
    assert ["until     after-both", "until     latest"] == [line for line in (dry + latest).splitlines() if "until" in line[:5]]
    segments = sorted(archive.glob("*[0-9A-F].gz"))
    other = folder / "other"
    other.mkdir()
    shutil.copy(segments[-1], other)
    page = bytearray(gzip.decompress(segments[-1].read_bytes()))
    page[24] ^= 1
    (other / segments[-1].name).write_bytes(gzip.compress(page))
    refused["is the archive of another server, of system"] = cli.run(*restoring, "latest", "--archive", other)
    segments[-2].rename(folder / "aside.gz")
    refused[f"{segments[-2].stem} is missing after {segments[-3].stem}"] = cli.run(*restoring, "latest")
    (folder / "aside.gz").rename(segments[-2])
    assert dict.fromkeys(refused, 2) == {why: each.exit_code for why, each in refused.items()}, refused
    assert [] == [(why, each.stderr) for why, each in refused.items() if why not in each.stderr]


def old_backups_go_with_what_only_they_needed(cli: Cli, backups: Path, archive: Path) -> None:
    segments = sorted(archive.glob("*[0-9A-F].gz"))
    needed = segments[-2]
    manifest = json.loads((backups / "monday" / "manifest.json").read_text())
    manifest["began"] = datetime.now(UTC).isoformat()
    manifest["wal"]["start"] = f"{int(needed.stem[8:16], 16):X}/{int(needed.stem[16:], 16) * 2**24 + 40:X}"
    (backups / "tuesday").mkdir()
    (backups / "tuesday" / "manifest.json").write_text(json.dumps(manifest))
    pruning = ("backup", "prune", backups, "--keep", 1)

    assert "1 backup would be kept" in cli.output(*pruning)
    assert segments == sorted(archive.glob("*[0-9A-F].gz"))
    cli.output(*pruning, "--yes")

    assert ["tuesday"] == [each.name for each in backups.iterdir()]
    assert segments[-2:] == sorted(archive.glob("*[0-9A-F].gz"))


def test_a_file_that_is_archived_is_never_replaced_by_another(tmp_path) -> None:
    own_folder(tmp_path, None)
    archiving_(tmp_path, "1", tmp_path / "archives", None)
    (folder,) = (tmp_path / "archives").iterdir()
    (tmp_path / "wal").write_bytes(b"a" * 1000)
    command = ["sh", str(tmp_path / "archive.sh"), str(tmp_path / "wal"), "0001", str(folder)]

    first, again = subprocess.run(command, check=False), subprocess.run(command, check=False)
    (tmp_path / "wal").write_bytes(b"b" * 1000)
    other = subprocess.run(command, check=False, capture_output=True, text=True)

    assert (0, 0, 1) == (first.returncode, again.returncode, other.returncode)
    assert "is there, with other contents" in other.stderr
    assert [b"a" * 1000] == [gzip.decompress(each.read_bytes()) for each in folder.iterdir()]


def test_a_folder_that_cannot_be_an_archive_is_refused_before_anything_is_made(tmp_path, monkeypatch) -> None:
    for place, why in ((tmp_path / "data" / "archives", "would be lost with it"), (tmp_path / "50%", "a percent sign")):
        monkeypatch.setenv("WAXSEAL_WAL_ARCHIVE", str(place))

        refused = here("up", "--data", str(tmp_path / "data"))

        assert (2, True) == (refused.exit_code, why in refused.stderr)
    assert [] == list(tmp_path.iterdir())


def test_a_restore_point_is_not_named_as_a_time_or_latest(shared_database) -> None:
    for name in ("latest", "2h", "2026-01-31", "x" * 64):
        assert "not as a time, a duration or latest" in Cli(shared_database).owner.output("backup", "point", name, code=2)


def test_a_backup_that_stands_still_is_given_up(servers, shared_database, reader, tmp_path) -> None:
    ((checkpointer,),) = shared_database.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    url = make_url(shared_database.url).set(username=reader, password=reader).render_as_string(hide_password=False)
    version = str(int(shared_database.rows("SHOW server_version_num")[0][0]) // 10000)
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        with pytest.raises(OpsError, match="pg_basebackup made no progress for 1 s, and was ended"):
            base_backup.take(url, version, tmp_path / "database", still=1.0)
    finally:
        os.kill(checkpointer, signal.SIGCONT)
    wait_for(lambda: shared_database.rows("SELECT FROM pg_stat_replication") == [])


def test_a_backup_is_verified_and_the_next_one_links_its_blobs(shared_database, reader, taken) -> None:
    next_ = taken.with_name("next")

    done = backup_as(reader, shared_database, next_, "--previous", taken)

    assert (0, True) == (done.exit_code, "2 of them linked" in done.stdout)
    assert "sound" == here("backup", "--verify", str(next_)).stdout.split(":")[0]
    (path,) = [each for each in (next_ / "blobs").rglob("*") if each.is_file()][:1]
    assert path.samefile(taken / path.relative_to(next_))
    manifest = json.loads((next_ / "manifest.json").read_text())
    assert shared_database.key not in (next_ / "manifest.json").read_text()
    assert (2, 1) == (manifest["blobs"], len(manifest["keys"]))
    assert definitions(DELIVER_TOPOLOGY) == json.loads((next_ / "definitions.json").read_text())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "database" / "base.tar.gz").write_bytes(b"x"), "base.tar.gz is not as it was written"),
        (lambda folder: (folder / "definitions.json").unlink(), "definitions.json is missing"),
    ],
)
def test_a_damaged_backup_is_not_sound(taken, tmp_path, damage, told) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(taken, copy)
    damage(copy)

    found = here("backup", "--verify", str(copy))

    assert (1, True, True) == (found.exit_code, told in found.stdout, "NOT sound" in found.stdout)
    assert [copy] == list(tmp_path.iterdir())


def test_so_is_one_whose_blobs_are_missing_or_altered_and_each_is_named(taken, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(taken, copy)
    missing, altered = [each for each in (copy / "blobs").rglob("*") if each.is_file()]
    missing.unlink()
    altered.write_bytes(b"x")

    found = here("backup", "--verify", str(copy))

    assert (1, 3) == (found.exit_code, found.stdout.count("\n"))
    assert f"the blob sha256:{missing.name} is not in the store" in found.stdout
    assert f"the blob sha256:{altered.name} holds 1 bytes with another digest" in found.stdout


def test_a_blob_that_is_missing_or_altered_is_named_and_the_rest_is_backed_up(shared_database, reader, tmp_path) -> None:
    blobs = Blobs(str(tmp_path / "blobs"))
    blobs.put("acme", b"a")
    altered = blobs.put("acme", b"b")
    (tmp_path / "blobs" / key_of("acme", altered.reference)).write_bytes(b"c")

    done = backup_as(reader, shared_database, tmp_path / "taken")

    assert (1, True) == (done.exit_code, "1 blob of" in done.stdout)
    assert f"acme: the blob {altered.reference} holds 1 bytes with another digest" in done.stderr


def test_a_backup_is_refused_when_it_would_overwrite_one_or_its_login_may_not_copy_the_database(
    shared_database, reader, taken, tmp_path
) -> None:
    again = backup_as(reader, shared_database, taken)
    worker = Cli(shared_database).run("backup", tmp_path / "none")

    assert (2, 2) == (again.exit_code, worker.exit_code)
    assert "exists: each backup has a folder of its own" in again.stderr
    assert "the login test_worker may not copy the database" in worker.stderr
    assert [] == list(tmp_path.iterdir())
    assert not taken.with_name("taken.partial").exists()


def test_what_a_killed_backup_left_is_removed_but_not_what_another_is_writing(shared_database, reader, taken) -> None:
    again, partial = taken.with_name("again"), taken.with_name("again.partial")
    (partial / "database").mkdir(parents=True)
    (partial / "blobs.jsonl").touch()
    held = os.open(partial, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)

    refused = backup_as(reader, shared_database, again)

    assert (2, True) == (refused.exit_code, "is being written by another backup" in refused.stderr)
    assert (partial / "blobs.jsonl").exists()
    os.close(held)
    assert 0 == backup_as(reader, shared_database, again, "--previous", taken).exit_code
    assert (True, False) == (again.exists(), partial.exists())


def test_a_restore_says_what_it_would_do_and_refuses_what_it_cannot_do_without_touching_anything(
    shared_database, taken, tmp_path
) -> None:
    cli, new = Cli(shared_database), tmp_path / "new"
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()

    dry = cli.run("restore", taken, "--data", new)
    refused = {
        "needs an archive": cli.run("restore", taken, "--data", new, "--until", "1h"),
        "is not empty": cli.run("restore", taken, "--data", tmp_path / "used", "--yes"),
        "needs the keys": cli.but(keys="").run("restore", taken, "--data", new, "--yes"),
        "is no backup": cli.run("restore", tmp_path, "--data", new, "--yes"),
    }

    assert (0, "Nothing was done. Add --yes to do it.\n") == (dry.exit_code, dry.stderr)
    assert dict.fromkeys(refused, 2) == {why: each.exit_code for why, each in refused.items()}
    assert [] == [why for why, each in refused.items() if why not in each.stderr]
    assert not new.exists()


def test_up_refuses_a_folder_whose_restore_did_not_end(tmp_path) -> None:
    (tmp_path / "restoring").touch()

    refused = here("up", "--data", str(tmp_path))

    assert (2, True) == (refused.exit_code, "did not end: remove the folder, and restore again" in refused.stderr)
