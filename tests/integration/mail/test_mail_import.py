"""Mails imported from files: each once, byte for byte, however often the import is interrupted and repeated."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.admin.mail_files import MailFile, find_files
from ops.runtime.blobs import Blobs
from pipeline.mail.event_attributes import event_id
from schemas.blob import LARGEST_INLINE
from schemas.mailbox import Mailbox, MailItem, RawMail
from support.cli import Cli
from support.mail.mailboxes import added
from support.mail.nasty import headed
from support.sessions import waits_for_lock
from support.waiting import wait_for
from workers.amqp.publisher_thread import PublisherThread
from workers.commands import import_mails
from workers.commands.import_mails import BATCH, Imported, Importer
from workers.mail.pull.publish import MailIntake

_numbers = itertools.count()

SEPARATOR = b"From a@x.example Mon Jun  1 10:00:00 2026\n"


def mails(count: int, size: int = 0) -> list[bytes]:
    return [b"From: u%d@x.example\nMessage-ID: <%d@x.example>\n\n%b\n" % (n % 50, n, b"x" * size) for n in range(count)]


def mbox(path: Path, raws: list[bytes]) -> Path:
    path.write_bytes(b"".join(SEPARATOR + raw + b"\n" for raw in raws))
    return path


@pytest.fixture(scope="module")
def database(shared_database: Any) -> Any:
    """The file's database, in which each test has a mailbox of its own."""
    shared_database.add_tenant()
    return shared_database


@pytest.fixture
def mailbox(database: Any) -> Mailbox:
    return added(database, Mailbox(0, "acme", f"support-{next(_numbers)}", "imap", "u", host="imap.example", password="p"))


@pytest.fixture(scope="module")
def recorder(shared_start: Any, blob_folder: Path) -> None:
    """The process that records what is imported."""
    shared_start("ingest", blobs=blob_folder)


@pytest.fixture
def cli(cli: Cli, blob_folder: Path) -> Cli:
    return cli.but(blobs=blob_folder)


@pytest.fixture
def intake(servers: Any, blob_folder: Path) -> Iterator[MailIntake]:
    publisher = PublisherThread(servers.amqp_url, "test")
    yield MailIntake(publisher, Blobs(str(blob_folder)))
    publisher.close()


@pytest.fixture
def content(database: Any, mailbox: Mailbox, recorder: None) -> Iterator[Callable[[str], list[tuple]]]:
    """Selects from the recorded content of the mailbox."""
    with database.connect() as conn:
        yield lambda what: conn.execute(f"SELECT {what} FROM content WHERE source = %s", (mailbox.name,)).fetchall()


def recorded(content: Callable[[str], list[tuple]], count: int) -> None:
    wait_for(lambda: content("count(*)") == [(count,)])


def items(database: Any, mailbox: Mailbox) -> int:
    return database.rows("SELECT count(*) FROM mail_item WHERE mailbox_id = %s", mailbox.id)[0][0]


def test_mails_of_every_form_are_recorded_to_the_byte_once_and_known_again(content, mailbox, cli, tmp_path) -> None:
    raws = mails(4)
    large = headed(body=b"y" * (LARGEST_INLINE + 1))
    mbox(tmp_path / "archive.mbox", raws[:2])
    (tmp_path / "box/cur").mkdir(parents=True)
    (tmp_path / "box/cur/1:2,S").write_bytes(raws[2])
    (tmp_path / "a.eml").write_bytes(raws[3])
    (tmp_path / "large.eml").write_bytes(large)
    (tmp_path / "again.eml").write_bytes(raws[0])

    counted = cli.json("mail", "import", "acme", mailbox.name, tmp_path, "--dry-run")
    first = cli.run("mail", "import", "acme", mailbox.name, tmp_path)
    second = cli.json("mail", "import", "acme", mailbox.name, tmp_path)

    assert (6, 5, 1) == (counted[0]["found"], counted[0]["new"], counted[0]["held"])
    assert (0, "imported 5 mails of 5 files; 1 was there already\n") == (first.exit_code, first.stdout)
    assert (6, 0, 6) == (second[0]["found"], second[0]["new"], second[0]["held"])
    recorded(content, 5)
    rows = content("body, blob, convert_from(attributes, 'UTF8')::jsonb")
    assert set(raws) == {bytes(body) for body, _, _ in rows if body is not None}
    assert [event_id(large)] == [blob for _, blob, _ in rows if blob is not None]
    attributes = [each for _, _, each in rows]
    assert {("email.received", "message/rfc822", "true", mailbox.name)} == {
        (each["type"], each["datacontenttype"], each["backfill"], each["source"]) for each in attributes
    }
    assert {event_id(raw) for raw in [*raws, large]} == {each["id"] for each in attributes}


def test_a_dry_run_publishes_and_remembers_nothing(database, mailbox, cli, tmp_path) -> None:
    ended = cli.run("mail", "import", "acme", mailbox.name, mbox(tmp_path / "a.mbox", mails(3)), "--dry-run")

    assert (0, "would import 3 mails of 1 file\n") == (ended.exit_code, ended.stdout)
    assert 0 == items(database, mailbox)


def test_what_a_dry_run_counts_is_what_an_import_does(content, cli, intake, mailbox, tmp_path) -> None:
    lines = mails(BATCH + 10)
    pulled = [raw.replace(b"\n", b"\r\n") for raw in lines[:5]]
    mbox(tmp_path / "a.mbox", [*lines, *lines[:20]])
    (tmp_path / "empty.eml").write_bytes(b"")
    (tmp_path / "empty-too.eml").write_bytes(b"")
    intake.accept(mailbox, [RawMail(f"imap/1/{n}", "INBOX", raw, datetime.now(UTC)) for n, raw in enumerate(pulled)])
    recorded(content, 5)

    for options, new in ((("--crlf",), BATCH + 6), ((), BATCH + 10)):
        arguments = ("mail", "import", "acme", mailbox.name, tmp_path, *options)
        (counted,), (done,) = cli.json(*arguments, "--dry-run"), cli.json(*arguments)

        assert counted == done
        assert (BATCH + 32, new) == (done["found"], done["new"])
    recorded(content, 5 + BATCH + 6 + BATCH + 10)
    assert [event_id(b"")] == [
        id for id, body in content("convert_from(attributes, 'UTF8')::jsonb ->> 'id', body") if body == b""
    ]


def test_an_import_that_was_killed_goes_on_where_it_was(database, content, mailbox, cli, tmp_path) -> None:
    raws = mails(4 * BATCH, 1_000)
    path = mbox(tmp_path / "archive.mbox", raws)

    with database.connect() as conn, cli.process("mail", "import", "acme", mailbox.name, path) as killed:
        with conn.transaction(force_rollback=True):  # the third batch waits for this row when it has been published
            third = event_id(raws[2 * BATCH]).replace("sha256:", "import/")
            row = (mailbox.id, third, third)
            conn.execute("INSERT INTO mail_item VALUES (%s, %s, 'import', NULL, 1, now(), %s, '{}', now())", row)
            wait_for(lambda: waits_for_lock(database))
            killed.kill()
            killed.wait()
        assert 2 * BATCH == items(database, mailbox)
    recorded(content, 3 * BATCH)
    (rest,) = cli.json("mail", "import", "acme", mailbox.name, path)

    assert (4 * BATCH, 3 * BATCH, BATCH) == (rest["found"], rest["held"], rest["new"])
    recorded(content, 4 * BATCH)
    assert set(raws) == {bytes(body) for (body,) in content("body")}


def test_what_was_published_and_not_remembered_is_recorded_once(
    content, engine, mailbox, intake, tmp_path, monkeypatch
) -> None:
    files = list(find_files(mbox(tmp_path / "archive.mbox", mails(10))))
    last = list(find_files(mbox(tmp_path / "last.mbox", mails(11)[-1:])))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def run(which: list[MailFile]) -> Imported:
        return Importer(engine, mailbox, intake).run(which, "mboxrd", crlf=False, show=lambda _: None)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(import_mails.mail_items, "add", killed)
        run(files)
    assert 10 == run(files).new
    run(last)

    wait_for(lambda: (mails(11)[-1],) in content("body"))
    assert [(11,)] == content("count(*)")


class Taking(MailIntake):
    """Accepts mails without keeping them, and records the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def accept(self, mailbox: Mailbox, mails: Any) -> list[MailItem]:
        self.batches.append((len(mails), sum(len(mail.raw) for mail in mails)))
        return [_item(mail) for mail in mails]


def _item(mail: RawMail) -> MailItem:
    return MailItem(mail.source_key, mail.folder, None, len(mail.raw), mail.internal_date, mail.event_id)


def test_a_large_archive_is_imported_in_bounded_memory_with_progress(engine, mailbox, tmp_path) -> None:
    path = mbox(tmp_path / "archive.mbox", mails(3_000, 12_000))
    files = list(find_files(path))
    taking, shown = Taking(), []
    tracemalloc.start()
    done = Importer(engine, mailbox, taking).run(files, "mboxrd", crlf=False, show=shown.append)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (3_000, 3_000, 0) == (done.found, done.new, done.failed)
    assert all(count <= BATCH and size <= 8 << 20 for count, size in taking.batches)
    assert peak < 12 << 20, f"{peak >> 20} MiB of a file of {path.stat().st_size >> 20} MiB"
    assert shown == sorted(shown)
    assert path.stat().st_size == shown[-1]


def test_what_cannot_be_read_is_told_and_keeps_nothing_else_out(engine, mailbox, cli, tmp_path, monkeypatch) -> None:
    (tmp_path / "a.eml").write_bytes(mails(1)[0])
    files = [*find_files(tmp_path / "a.eml")]
    gone = list(files)
    missing = type(files[0])(tmp_path / "gone.eml", "eml", 10)

    done = Importer(engine, mailbox, Taking()).run([missing, *gone], "mboxrd", crlf=False, show=lambda _: None)

    assert (1, 1, 1) == (done.found, done.new, done.failed)
    assert "gone.eml: No such file" in done.faults[0]
    monkeypatch.setattr("ops.admin.mail_files.MAX_MAIL", 10)
    ended = cli.run("mail", "import", "acme", mailbox.name, tmp_path / "a.eml")
    assert (2, True) == (ended.exit_code, "1 could not be read" in ended.output and "too large" in ended.output)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("acme", "nobody", "."), "there is no mailbox acme/nobody"),
        (("acme", None, "empty"), "there are no mails"),
        (("acme", None, "missing"), "does not exist"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(cli, mailbox, tmp_path, monkeypatch, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()

    ended = cli.run("mail", "import", *(each or mailbox.name for each in arguments))

    assert (2, True) == (ended.exit_code, said in ended.output), ended.output


def test_with_crlf_a_mail_that_was_pulled_is_the_same(content, engine: Engine, mailbox, intake, tmp_path) -> None:
    (raw,) = mails(1)
    (tmp_path / "a.eml").write_bytes(raw)
    intake.accept(mailbox, [RawMail("imap/1/1", "INBOX", raw.replace(b"\n", b"\r\n"), datetime.now(UTC))])
    recorded(content, 1)

    Importer(engine, mailbox, intake).run(find_files(tmp_path / "a.eml"), "mboxrd", crlf=True, show=lambda _: None)
    Importer(engine, mailbox, intake).run(find_files(tmp_path / "a.eml"), "mboxrd", crlf=False, show=lambda _: None)

    recorded(content, 2)
