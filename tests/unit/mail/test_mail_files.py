import mailbox
import os
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import compat32
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.admin import mail_files
from ops.admin.mail_files import FoundMail, MailFile, Quoting, find_files, read_mails, total
from support.mail.nasty import NASTY, PLAIN

SEPARATOR = b"From a@x.example Mon Jun  1 10:00:00 2026\n"
ONE, TWO = b"Subject: one\n\nhello\n", b"Subject: two\n\nworld\n"


def mbox(*raws: bytes, quoting: str = "mboxrd", line_end: bytes = b"\n") -> bytes:
    """An mbox as the format says: a separator line, the mail with its lines quoted, an empty line."""
    out = bytearray()
    for raw in raws:
        out += SEPARATOR.replace(b"\n", line_end)
        for line in raw.splitlines(keepends=True):
            quoted = line.lstrip(b">").startswith(b"From ") if quoting == "mboxrd" else line.startswith(b"From ")
            out += (b">" if quoted and quoting != "none" else b"") + line
        out += line_end
    return bytes(out)


def read(path: Path, data: bytes, quoting: Quoting = "mboxrd", *, crlf: bool = False) -> list[FoundMail]:
    path.write_bytes(data)
    return list(read_mails(MailFile(path, "mbox", len(data)), quoting, crlf=crlf))


def raws(path: Path, data: bytes, quoting: Quoting = "mboxrd", *, crlf: bool = False) -> list[bytes | None]:
    return [each.raw for each in read(path, data, quoting, crlf=crlf)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.mbox"


@pytest.mark.parametrize(
    "mails",
    [
        [ONE],
        [ONE, TWO, ONE],
        [b"Subject: s\n\n"],
        [ONE, b"", b"\n", TWO],
        [b"Subject: s\n\n\n\n\n", TWO],
        [b"Subject: s\n\nFrom here\n>From there\n>>From everywhere\n> From nowhere\nFromage\n", TWO],
        [b"Subject: s\n\n\nFrom after an empty line\n", TWO],
        [b"Subject: s\n\nhello\r\nmixed\n", TWO],
        [b"\njust a body\n", TWO],
        [b"Subject: s\n\nnul \0 and \xff\xfe\n", TWO],
    ],
)
def test_what_was_written_as_mboxrd_is_read_to_the_byte(path: Path, mails: list[bytes]) -> None:
    assert mails == raws(path, mbox(*mails))


def test_an_mbox_with_crlf_keeps_its_line_ends(path: Path) -> None:
    mails = [ONE.replace(b"\n", b"\r\n"), TWO.replace(b"\n", b"\r\n")]

    assert mails == raws(path, mbox(*mails, line_end=b"\r\n"))


def test_quoting_is_undone_as_it_was_done(path: Path) -> None:
    written = b"Subject: s\n\n>From a\n>>From b\n"
    file = SEPARATOR + written + b"\n"

    assert [b"Subject: s\n\nFrom a\n>From b\n"] == raws(path, file, "mboxrd")
    assert [b"Subject: s\n\nFrom a\n>>From b\n"] == raws(path, file, "mboxo")
    assert [written] == raws(path, file, "none")


def test_a_line_that_only_looks_like_a_separator_separates_nothing(path: Path) -> None:
    mails = [b"Subject: s\n\nFrom x\n\nFrom here on it was downhill\nall the way\n", TWO]

    assert mails == raws(path, mbox(*mails, quoting="none"), "none")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_line_with_a_time_and_a_header_behind_it_separates_without_an_empty_line(
    path: Path, mark: bytes, line_end: bytes
) -> None:
    mails = [each.replace(b"\n", line_end) for each in (ONE, TWO, ONE)]
    separator = SEPARATOR.replace(b"\n", line_end)

    assert mails == raws(path, mark + separator + separator.join(mails), "none")
    assert mails == raws(path, (mark + separator).join([b"", *mails]), "none")


@pytest.mark.parametrize(
    "line",
    [
        SEPARATOR + b"it was sent\n",
        SEPARATOR + b"\nNote: it was sent\n",
        b"From a@x.example on\nNote: it was sent\n",
        b"From his mail of Mon Jun  1 10:00:00 2026\nNote: it was sent\n",
        b">" + SEPARATOR + b"Note: it was sent\n",
        SEPARATOR[:-1],
    ],
)
def test_within_a_text_a_line_separates_by_a_time_and_a_header_only(path: Path, line: bytes) -> None:
    mail = b"Subject: s\n\nhello\n" + line

    assert [mail] == raws(path, SEPARATOR + mail, "none")


def test_the_line_behind_a_separator_separates_nothing(path: Path) -> None:
    assert [SEPARATOR + ONE, TWO] == raws(
        path, SEPARATOR + mbox(SEPARATOR + ONE, TWO, quoting="none")[len(SEPARATOR) :], "none"
    )


def test_an_mbox_with_a_mark_before_it_looks_like_one(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"\xef\xbb\xbf" + mbox(ONE))

    assert ["mbox"] == [each.form for each in find_files(tmp_path)]


def test_the_last_mail_needs_neither_its_empty_line_nor_its_line_end(path: Path) -> None:
    assert [ONE] == raws(path, SEPARATOR + ONE)
    assert [ONE[:-1]] == raws(path, SEPARATOR + ONE[:-1])


def test_what_stands_before_the_first_separator_is_a_mail_too(path: Path) -> None:
    assert [ONE, TWO] == raws(path, ONE + b"\n" + mbox(TWO))


@pytest.mark.parametrize("data", [b"", b"\n\n", SEPARATOR])
def test_an_mbox_without_mails_has_none(path: Path, data: bytes) -> None:
    assert [] == raws(path, data)


def test_with_crlf_lines_end_as_on_the_wire(path: Path) -> None:
    assert [b"Subject: s\r\n\r\na\r\nb\rc\r\n"] == raws(path, mbox(b"Subject: s\n\na\r\nb\rc\n"), crlf=True)


@pytest.mark.parametrize(
    ("line", "came"),
    [
        (b"From a@x Mon Jun  1 10:00:00 2026\n", datetime(2026, 6, 1, 10, tzinfo=UTC)),
        (b"From - Mon Jun 01 10:00:00 2026\n", datetime(2026, 6, 1, 10, tzinfo=UTC)),
        (b"From 123@xxx Mon Jun 01 12:00:00 +0200 2026\n", datetime(2026, 6, 1, 10, tzinfo=UTC)),
        (b"From a@x sometime\n", datetime(2020, 1, 1, tzinfo=UTC)),
        (b"From a@x Mon Jun 99 99:99:99 2026\n", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_the_time_of_a_mail_is_that_of_its_separator_or_else_its_own(path: Path, line: bytes, came: datetime) -> None:
    (mail,) = read(path, line + b"Date: Wed, 1 Jan 2020 00:00:00 +0000\n\nx\n")

    assert came == mail.date


def test_a_mail_that_is_too_large_is_told_and_the_others_are_read(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mail_files, "MAX_MAIL", 100)
    large = b"Subject: large\n\n" + b"x" * 60 + b"\n" + b"y" * 60 + b"\n"

    assert [ONE, None, TWO] == raws(path, mbox(ONE, large, TWO))
    (single,) = read_mails(_eml(path.with_suffix(".eml"), large))
    assert single.raw is None


def test_a_mail_that_is_too_large_on_the_wire_is_too_large(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mail_files, "MAX_MAIL", 100)
    mail = b"Subject: s\n\n" + b"x\n" * 40

    assert ([mail], [None]) == (raws(path, mbox(mail)), raws(path, mbox(mail), crlf=True))


def test_a_line_without_end_is_read_in_pieces(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mail_files, "PIECE", 50)
    mails = [b"Subject: s\n\n" + b"x" * 95 + b"From y\n", TWO]

    assert mails == raws(path, mbox(*mails))


def test_the_end_of_each_mail_is_where_the_next_begins(path: Path) -> None:
    data = mbox(ONE, TWO)

    assert [data.index(SEPARATOR, 1), len(data)] == [each.end for each in read(path, data)]


def test_every_nasty_mail_that_ends_in_a_line_end_comes_back_from_an_mbox(path: Path) -> None:
    mails = [raw for raw in NASTY.values() if raw.endswith(b"\n") and raw.strip() and b"\r" not in raw.replace(b"\r\n", b"")]
    mails = [raw.replace(b"\r\n", b"\n") for raw in mails if len(raw) < 100_000]

    assert len(mails) > 100
    assert mails == raws(path, mbox(*mails))


def test_what_pythons_own_mbox_writes_is_read(path: Path) -> None:
    box = mailbox.mbox(path)
    box.add(mailbox.mboxMessage(message_from_bytes(PLAIN + b"\r\nFrom here\r\nhello\r\n", policy=compat32)))
    box.add(mailbox.mboxMessage(message_from_bytes(ONE)))
    box.close()

    assert [PLAIN.replace(b"\r\n", b"\n") + b"\nFrom here\nhello\n", ONE] == raws(path, path.read_bytes(), "mboxo")


@given(st.lists(st.sampled_from([b"From x\n", b">From y\n", b"\n", b"a: b\n", b"text\n", b"\r\n", b"> \n"]), max_size=12))
def test_any_body_comes_back_from_an_mbox(tmp_path_factory, lines: list[bytes]) -> None:
    raw = b"Subject: s\n\n" + b"".join(lines)
    written = mbox(raw, TWO)

    found = raws(tmp_path_factory.mktemp("mbox") / "a.mbox", written)

    assert [raw, TWO] == found


def test_a_file_is_read_as_it_is_and_its_time_is_that_of_its_header_or_its_own(tmp_path: Path) -> None:
    (tmp_path / "b.eml").write_bytes(b"no header")
    os.utime(tmp_path / "b.eml", (1_700_000_000, 1_700_000_000))

    (dated,) = read_mails(_eml(tmp_path / "a.eml", PLAIN + b"\r\nx"))
    (undated,) = read_mails(MailFile(tmp_path / "b.eml", "eml", 9))

    assert (PLAIN + b"\r\nx", datetime(2026, 6, 1, 10, tzinfo=UTC)) == (dated.raw, dated.date)
    assert (b"no header", datetime.fromtimestamp(1_700_000_000, UTC)) == (undated.raw, undated.date)


def _eml(path: Path, raw: bytes) -> MailFile:
    path.write_bytes(raw)
    return MailFile(path, "eml", len(raw))


def test_folders_are_looked_through_for_every_form(tmp_path: Path) -> None:
    for folder in ("Maildir/cur", "Maildir/new", "Maildir/tmp", "Maildir/.Sent/cur", "deep/er"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("Maildir/cur/1:2,S", "Maildir/new/2", "Maildir/tmp/3", "Maildir/.Sent/cur/4", "Maildir/dovecot-uidlist"):
        (tmp_path / name).write_bytes(ONE)
    (tmp_path / "deep/er/a.EML").write_bytes(ONE)
    (tmp_path / "deep/archive").write_bytes(mbox(ONE))
    (tmp_path / "deep/archive.mbox").write_bytes(b"")
    (tmp_path / "deep/notes.txt").write_bytes(b"no mail")

    found = list(find_files(tmp_path))

    assert [
        ("Maildir/cur/1:2,S", "maildir"),
        ("Maildir/new/2", "maildir"),
        ("Maildir/.Sent/cur/4", "maildir"),
        ("deep/archive", "mbox"),
        ("deep/archive.mbox", "mbox"),
        ("deep/er/a.EML", "eml"),
    ] == [(each.path.relative_to(tmp_path).as_posix(), each.form) for each in found]
    assert 4 * len(ONE) + len(mbox(ONE)) == total(found)
    assert ["deep/er/a.EML"] == [each.path.relative_to(tmp_path).as_posix() for each in find_files(tmp_path, "eml")]
    assert 3 == len(list(find_files(tmp_path, "maildir")))


def test_a_file_that_is_named_is_what_it_is_said_to_be_or_looks_like(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(ONE)
    (tmp_path / "many").write_bytes(mbox(ONE))

    assert ["eml", "mbox", "mbox", "eml"] == [
        next(find_files(tmp_path / name, form)).form
        for name, form in (("one", None), ("many", None), ("one", "mbox"), ("many", "eml"))
    ]
