"""Faults of servers: no mail is lost or taken for another, and no folder is stuck."""

import re
import time
from collections.abc import Iterator, Mapping

import pytest

from support.mail.imap_script import HANG_UP, UNFINISHED, Answer, body, facts, scripted, uids
from support.mail.mailboxes import Kept
from workers.mail import mailbox_session
from workers.mail.imap import connection, fetch, imap_mailbox, wire
from workers.mail.imap.connection import Denied, connect
from workers.mail.imap.wire import MAX_LITERAL
from workers.mail.mailbox_session import MAX_SECONDS, Away, NoFolder, PullBounds, Pulled, Refused, SourceError, Throttled

pytestmark = pytest.mark.usefixtures("loopback")

CURSOR = {"validity": 7, "uid": 0}
RAW = {uid: b"Subject: n %d\r\n\r\nhello %d\r\n" % (uid, uid) for uid in range(1, 10)}


def pull(answers: Mapping[bytes, Answer], lane: str = "new", cursor: Mapping = CURSOR) -> tuple[Pulled, list[bytes]]:
    with scripted(answers) as (mailbox, script):
        session = imap_mailbox.open_session(mailbox, None)
        try:
            return session.pull("INBOX", lane, cursor, PullBounds(), Kept()), script.asked
        finally:
            session.close()


def numbers(pulled: Pulled) -> list[int]:
    return [int(each.source_key.split("/")[2]) for each in pulled.mails]


def well(line: bytes) -> bytes:
    """A correct answer to FETCH."""
    if b"BODY" in line:
        return b"".join(body(uid, RAW[uid]) for uid in uids(line))
    return b"".join(facts(uid, len(RAW[uid])) for uid in uids(line))


def test_a_well_behaved_server_is_read() -> None:
    pulled, asked = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": well})

    assert [1, 2, 3] == numbers(pulled)
    assert [RAW[1], RAW[2], RAW[3]] == [each.raw for each in pulled.mails]
    assert {"validity": 7, "uid": 3} == pulled.cursor
    assert not [
        line for line in asked if line.startswith((b"SELECT", b"UID STORE")) or b"BODY[" in line.replace(b"BODY.PEEK[", b"")
    ]


@pytest.mark.parametrize(
    "listed",
    [b"* SEARCH 3 1 2\r\n", b"* SEARCH 2 3\r\n* SEARCH 1\r\n", b"* SEARCH 1 2 3 \r\n", b"* SEARCH 1 2 3 (MODSEQ 9)\r\n"],
)
def test_uids_come_in_any_order_and_form(listed) -> None:
    assert [1, 2, 3] == numbers(pull({rb"UID SEARCH": listed, rb"UID FETCH": well})[0])


def test_rows_come_in_any_order() -> None:
    def backwards(line: bytes) -> bytes:
        make = body if b"BODY" in line else facts
        return b"".join(make(uid, RAW[uid] if b"BODY" in line else len(RAW[uid])) for uid in reversed(uids(line)))

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": backwards})

    assert {uid: RAW[uid] for uid in (1, 2, 3)} == {int(each.source_key.split("/")[2]): each.raw for each in pulled.mails}


def test_the_last_mail_is_not_taken_for_a_new_one() -> None:
    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 3\r\n", rb"UID FETCH": well}, cursor={"validity": 7, "uid": 3})

    assert ([], {"validity": 7, "uid": 3}, False) == (numbers(pulled), pulled.cursor, pulled.more)


def test_a_mail_that_is_listed_and_not_given_is_asked_for_again_and_then_passed() -> None:
    def without_two(line: bytes) -> bytes:
        return b"".join(well(b"UID FETCH %d %s" % (uid, line.split(b" ", 3)[3])) for uid in uids(line) if uid != 2)

    pulled, asked = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": without_two})

    assert ([1, 3], 1, {"validity": 7, "uid": 3}) == (numbers(pulled), pulled.missing, pulled.cursor)
    assert [b"1:3", b"2", b"2"] == [line.split()[2] for line in asked if b"RFC822.SIZE" in line]


def test_the_cursor_does_not_pass_what_was_only_listed() -> None:
    def only_one(line: bytes) -> bytes:
        return b"".join(well(b"UID FETCH %d %s" % (uid, line.split(b" ", 3)[3])) for uid in uids(line) if uid == 1)

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": only_one})

    assert {"validity": 7, "uid": 1} == pulled.cursor


def test_unsolicited_rows_are_nobodys_mail() -> None:
    def chatty(line: bytes) -> bytes:
        noise = (
            b"* 1 FETCH (FLAGS (\\Seen))\r\n* 9 FETCH (UID 9 FLAGS ())\r\n* 2 FETCH (FLAGS (\\Flagged) UID 2)\r\n* 4 EXISTS\r\n"
        )
        return noise + well(line) + noise

    pulled, _ = pull(
        {rb"UID SEARCH": b"* 2 FETCH (FLAGS ())\r\n* SEARCH 1 2 3\r\n* 3 FETCH (UID 3 FLAGS ())\r\n", rb"UID FETCH": chatty}
    )

    assert {uid: RAW[uid] for uid in (1, 2, 3)} == {int(each.source_key.split("/")[2]): each.raw for each in pulled.mails}


def test_a_row_without_a_uid_is_nobodys_mail() -> None:
    def one_without(line: bytes) -> bytes:
        if b"BODY" in line and len(uids(line)) > 1:
            return b"* 2 FETCH (BODY[] {5}\r\nwrong)\r\n" + well(line)
        return well(line)

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": one_without})

    assert [RAW[1], RAW[2], RAW[3]] == [each.raw for each in pulled.mails]


def test_one_mail_that_the_server_refuses_hides_no_other() -> None:
    def refusing(line: bytes) -> bytes:
        return b"%TAG% NO [UNAVAILABLE] broken\r\n" if 2 in uids(line) else well(line)

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": refusing})

    assert ([1, 3], 1) == (numbers(pulled), pulled.missing)


@pytest.mark.parametrize("lane", ["new", "backfill"])
def test_one_mail_at_which_the_server_hangs_up_hides_no_other(lane) -> None:
    def dying(line: bytes) -> bytes:
        return HANG_UP if b"BODY" in line and 2 in uids(line) else well(line)

    cursor = CURSOR if lane == "new" else {"validity": 7, "below": 4}
    pulled, asked = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": dying}, lane, cursor)

    assert ({1, 3}, 1) == (set(numbers(pulled)), pulled.missing)
    assert asked.count(b"AUTHENTICATE PLAIN") == 1 + 3  # at the beginning, and twice for fetching that mail alone
    assert not pulled.more


def test_a_mail_whose_facts_kill_the_connection_hides_no_other() -> None:
    def dying(line: bytes) -> bytes:
        return HANG_UP if 2 in uids(line) else well(line)

    assert [1, 3] == numbers(pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": dying})[0])


def test_a_server_that_hangs_up_at_every_mail_is_away() -> None:
    def dying(line: bytes) -> bytes:
        return HANG_UP if b"BODY" in line else b"".join(facts(uid, 10) for uid in uids(line))

    answers = {rb"UID SEARCH": b"* SEARCH %s\r\n" % b" ".join(b"%d" % n for n in range(1, 30)), rb"UID FETCH": dying}
    with pytest.raises(Away):
        pull(answers, "backfill", {"validity": 7, "below": 30})


def test_a_mail_that_is_much_larger_than_the_server_says_hides_no_other() -> None:
    large = b"x" * (MAX_LITERAL + 1)

    def lying(line: bytes) -> bytes:
        said = well(line)
        return said.replace(b"BODY[] {%d}\r\n%s" % (len(RAW[2]), RAW[2]), b"BODY[] {%d}\r\n%s" % (len(large), large))

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": lying})

    assert ([1, 3], 1) == (numbers(pulled), pulled.missing)


class Later:
    """The time, some seconds ahead."""

    seconds = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.seconds


@pytest.fixture
def later(monkeypatch) -> Later:
    """What sessions take for the time; no test waits for a deadline."""
    later = Later()
    for module in (connection, fetch, imap_mailbox, mailbox_session, wire):
        monkeypatch.setattr(module, "time", later)
    return later


@pytest.mark.parametrize(
    ("hangs", "lane", "came", "cursor"),
    [
        (2, "new", [1], {"uid": 1}),
        (1, "new", [2, 3], {"uid": 0}),  # the cursor stays before the unanswered mail, and answered mails are kept
        (2, "backfill", [3], {"below": 3}),
    ],
)
def test_what_came_before_the_time_was_over_is_kept(hangs, lane, came, cursor, later) -> None:
    sizes = {1: 2560 if hangs == 1 else 1536, 2: 1536, 3: 1536}  # the largest are fetched last
    large = {uid: b"Subject: n %d\r\n\r\n" % uid + b"x" * (size * 1024) for uid, size in sizes.items()}

    def slow(line: bytes) -> bytes:
        if b"BODY" not in line:
            return b"".join(facts(uid, len(large[uid])) for uid in uids(line))
        if hangs in uids(line):
            later.seconds += 100
            return UNFINISHED
        return b"".join(body(uid, large[uid]) for uid in uids(line))

    start = CURSOR if lane == "new" else {"validity": 7, "below": 4}
    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": slow}, lane, start)

    assert (came, True, 0) == (sorted(numbers(pulled)), pulled.more, pulled.missing)
    assert cursor.items() <= pulled.cursor.items()


def test_a_mail_that_takes_longer_than_a_batch_comes_all_the_same(later) -> None:
    whole = b"Subject: n 1\r\n\r\n" + b"x" * (10 * 1024 * 1024)

    def slow(line: bytes) -> bytes:
        if b"BODY" not in line:
            return facts(1, len(whole))
        later.seconds += 6
        offset = int(line.split(b"<")[1].split(b".")[0])
        piece = whole[offset : offset + 1024 * 1024]
        return b"* 1 FETCH (UID 1 BODY[]<%d> {%d}\r\n%s)\r\n" % (offset, len(piece), piece)

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1\r\n", rb"UID FETCH": slow})

    assert later.seconds > MAX_SECONDS
    assert [whole] == [each.raw for each in pulled.mails]


@pytest.mark.parametrize(
    "said",
    [
        b"%TAG% BAD what is AUTHENTICATE PLAIN AHVzAHNlY3JldA==\r\n",
        b"%TAG% NO us/secret is wrong\r\n",
        b"* BYE secret is no command\r\n",
    ],
)
def test_what_a_server_repeats_of_the_credentials_is_told_to_nobody(said) -> None:
    with scripted({rb"AUTHENTICATE PLAIN": said}) as (mailbox, _), pytest.raises(SourceError) as told:
        imap_mailbox.open_session(mailbox, None)
    assert "repeats the credentials" in str(told.value)


def test_a_folder_that_cannot_be_searched_is_in_no_others_way() -> None:
    with pytest.raises(NoFolder, match="INBOX: SEARCH"):
        pull({rb"UID SEARCH": b"%TAG% NO [SERVERBUG] the index is broken\r\n"})


def test_a_folder_at_which_the_server_hangs_up_is_in_no_others_way() -> None:
    answers = {rb'EXAMINE "?Broken': HANG_UP, rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": well}
    with scripted(answers) as (mailbox, _):
        session = imap_mailbox.open_session(mailbox, None)
        for call in (lambda: session.begin("Broken"), lambda: session.pull("Broken", "new", CURSOR, PullBounds(), Kept())):
            with pytest.raises(NoFolder, match="Broken"):
                call()
        assert [1, 2, 3] == numbers(session.pull("INBOX", "new", CURSOR, PullBounds(), Kept()))
        session.close()


def test_a_large_mail_that_is_smaller_than_the_server_says_is_whole() -> None:
    whole = b"Subject: n 1\r\n\r\n" + b"x" * (2 * 1024 * 1024 + 5)

    def overstating(line: bytes) -> bytes:
        if b"BODY" not in line:
            return facts(1, len(whole) + 700)
        offset = int(line.split(b"<")[1].split(b".")[0])
        piece = whole[offset : offset + 1024 * 1024]
        if not piece:
            return b"* 1 FETCH (UID 1 BODY[]<%d> NIL)\r\n" % offset
        return b"* 1 FETCH (UID 1 BODY[]<%d> {%d}\r\n%s)\r\n" % (offset, len(piece), piece)

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1\r\n", rb"UID FETCH": overstating})

    assert [whole] == [each.raw for each in pulled.mails]


def test_a_folder_without_uidnext_is_begun_at_its_last_mail() -> None:
    answers = {rb"EXAMINE": b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n", rb"UID SEARCH": b"* SEARCH 1 5 3\r\n"}
    with scripted(answers) as (mailbox, _):
        session = imap_mailbox.open_session(mailbox, None)
        begun = session.begin("INBOX")
        session.close()

    assert ({"validity": 7, "uid": 5}, {"validity": 7, "below": 6}, 3) == (begun.new, begun.backfill, begun.total)


def test_a_folder_without_uidnext_may_have_more_mails_than_fit_in_one_line() -> None:
    first, end = 1_000_000, 1_130_000

    def found(line: bytes) -> bytes:
        low, high = re.search(rb"UID (\d+):(\d+|\*)", line).groups()  # type: ignore[union-attr]
        last = end - 1 if high == b"*" else min(int(high), end - 1)
        return b"* SEARCH %s\r\n" % b" ".join(b"%d" % uid for uid in range(max(min(int(low), last), first), last + 1))

    def given(line: bytes) -> bytes:
        return b"".join(body(uid, RAW[1]) if b"BODY" in line else facts(uid, len(RAW[1])) for uid in uids(line))

    answers = {
        rb"EXAMINE": b"* %d EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n" % (end - first),
        rb"UID SEARCH": found,
        rb"UID FETCH": given,
    }
    with scripted(answers) as (mailbox, _):
        session = imap_mailbox.open_session(mailbox, None)
        begun = session.begin("INBOX")
        oldest, newest = (
            numbers(session.pull("INBOX", "new", {"validity": 7, "uid": uid}, PullBounds(mails=2), Kept()))
            for uid in (first - 1, end - 3)
        )
        session.close()

    assert ({"validity": 7, "uid": end - 1}, end - first) == (begun.new, begun.total)
    assert ([first, first + 1], [end - 2, end - 1]) == (oldest, newest)


def test_a_backfill_passes_what_the_server_will_not_give() -> None:
    def without_two(line: bytes) -> bytes:
        return b"".join(well(b"UID FETCH %d %s" % (uid, line.split(b" ", 3)[3])) for uid in uids(line) if uid != 2)

    answers = {rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": without_two}
    pulled, _ = pull(answers, "backfill", {"validity": 7, "below": 4})

    assert ([3, 1], 1, 1, False) == (numbers(pulled), pulled.missing, pulled.cursor["below"], pulled.more)


def test_a_large_mail_whose_pieces_are_short_is_whole() -> None:
    whole = b"Subject: n 1\r\n\r\n" + b"x" * (3 * 1024 * 1024)

    def in_small_pieces(line: bytes) -> bytes:
        if b"BODY" not in line:
            return facts(1, len(whole))
        offset = int(line.split(b"<")[1].split(b".")[0])
        piece = whole[offset : offset + 700_000]  # shorter than requested
        return b"* 1 FETCH (UID 1 BODY[]<%d> {%d}\r\n%s)\r\n" % (offset, len(piece), piece)

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1\r\n", rb"UID FETCH": in_small_pieces})

    assert [whole] == [each.raw for each in pulled.mails]


@pytest.mark.parametrize(
    ("said", "error", "certain"),
    [
        (b"NO [AUTHENTICATIONFAILED] no", Refused, True),
        (b"NO LOGIN failed.", Refused, False),
        (b"NO [UNAVAILABLE] later", Away, None),
        (b"NO [ALERT] Too many simultaneous connections. (Failure)", Throttled, None),
        (b"NO Temporary authentication failure", Away, None),
        (b"BAD what", Refused, False),
    ],
)
def test_what_a_refused_login_means(said, error, certain) -> None:
    with scripted({rb"AUTHENTICATE": b"+ \r\n%TAG% " + said + b"\r\n"}) as (mailbox, _), pytest.raises(error) as raised:
        imap_mailbox.open_session(mailbox, None)
    assert certain == getattr(raised.value, "certain", None)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "said",
    [
        b"* SEARCH " + b"1 " * 600_000 + b"\r\n",
        b"* 1 FETCH (UID 1 BODY[] {99999999999}\r\n",
        b"nonsense\r\n",
        b"* BYE tired\r\n",
        b"* SEARCH " + b"9" * 5000 + b"\r\n",
        b"* SEARCH 9223372036854775808\r\n",
    ],
)
def test_nonsense_is_a_server_that_is_away(said) -> None:
    with pytest.raises(Away):
        pull({rb"UID SEARCH": said})


@pytest.mark.parametrize("number", [b"9" * 5000, b"9223372036854775808"])
@pytest.mark.parametrize("item", [b"EXISTS", b"UIDVALIDITY", b"UIDNEXT"])
def test_a_folder_with_a_number_that_is_too_large_is_in_no_others_way(item, number) -> None:
    said = b"* %s EXISTS\r\n" % number if item == b"EXISTS" else b"* OK [%s %s] x\r\n" % (item, number)
    said += b"* 3 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 4] x\r\n"  # the client takes the first of two
    with pytest.raises(NoFolder, match="malformed"), scripted({rb"EXAMINE": said}) as (mailbox, _):
        imap_mailbox.open_session(mailbox, None).begin("INBOX")


def test_a_mail_of_a_size_that_is_too_large_hides_no_other() -> None:
    def huge(line: bytes) -> bytes:
        return well(line).replace(b"UID 2 RFC822.SIZE ", b"UID 2 RFC822.SIZE 9223372036854775808")

    pulled, _ = pull({rb"UID SEARCH": b"* SEARCH 1 2 3\r\n", rb"UID FETCH": huge})

    assert ([1, 3], [], 1) == (numbers(pulled), pulled.kept, pulled.missing)


def test_a_server_that_trickles_costs_no_more_than_the_deadline(lateness) -> None:
    def trickle(_line: bytes) -> Iterator[bytes]:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.05)
            yield b"* OK still here\r\n"
        yield b"* SEARCH 1\r\n"

    with scripted({rb"UID SEARCH": trickle}) as (mailbox, _):
        session = imap_mailbox.open_session(mailbox, None)
        began = time.monotonic()
        with pytest.raises(Away, match="time"):
            session.pull("INBOX", "new", CURSOR, PullBounds(until=began + 0.5), Kept())
        took = time.monotonic() - began
        session.close()

    assert took < 3 + lateness()


@pytest.mark.parametrize(
    ("said", "at_once", "in_the_end"),
    [
        (b"+ idling\r\n", False, False),
        (b"* OK still here\r\n* 4 EXISTS\r\n+ idling\r\n", True, False),
        (b"+ idling\r\n* 1 RECENT\r\n* 4 EXISTS\r\n* 4 FETCH (FLAGS (\\Recent))\r\n", False, True),
        (b'* 3 EXISTS\r\n+ \r\n* OK Still "here\r\n* 4 EXISTS\r\n', True, True),
        (b"* 4 EXPUNGE\r\n+ idling\r\n* 3 EXPUNGE\r\n", False, False),
    ],
)
def test_a_server_may_tell_of_mails_before_and_after_it_agrees_to_idle(said, at_once, in_the_end) -> None:
    with scripted({rb"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE\r\n", rb"IDLE": said}) as (mailbox, _):
        connection = connect(mailbox, None, time.monotonic() + 30)
        connection.examine("INBOX")
        assert connection.can_idle()

        for _ in range(2):
            assert (at_once, in_the_end) == (connection.idle(), connection.end_idle())
        assert [] == connection.search(1, None)
        connection.close()


@pytest.mark.parametrize(("said", "error"), [(b"%TAG% NO not today\r\n", Denied), (HANG_UP, Away), (b'+\r\n* BYE "\r\n', Away)])
def test_a_server_that_does_not_idle_after_all_says_so(said, error) -> None:
    with scripted({rb"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN IDLE\r\n", rb"IDLE": said}) as (mailbox, _):
        connection = connect(mailbox, None, time.monotonic() + 30)
        with pytest.raises(error):
            connection.idle()
            connection.end_idle()


def sized(size: int, given: bytes) -> Mapping[bytes, Answer]:
    """A folder with one mail. The server states `size` bytes, and answers `given`."""

    def answer(line: bytes) -> bytes:
        return b"* 1 FETCH (UID 1 BODY[] %s)\r\n" % given if b"BODY" in line else facts(1, size)

    return {rb"UID SEARCH": b"* SEARCH 1\r\n", rb"UID FETCH": answer}


@pytest.mark.parametrize("given", [b'""', b"{0}\r\n", b"NIL"])
@pytest.mark.parametrize(("lane", "cursor"), [("new", CURSOR), ("backfill", {"validity": 7, "below": 2})])
def test_a_mail_of_no_bytes_is_a_mail(given, lane, cursor) -> None:
    pulled, asked = pull(sized(0, given), lane, cursor)

    assert [b""] == [each.raw for each in pulled.mails]
    assert (0, 1, False) == (pulled.missing, pulled.seen, pulled.more)
    assert 2 == sum(b"FETCH" in line for line in asked)
    assert pulled.cursor["uid" if lane == "new" else "below"] == 1


@pytest.mark.parametrize("given", [b'""', b"{0}\r\n", b"NIL"])
def test_a_mail_whose_bytes_the_server_does_not_give_is_not_asked_for_for_ever(given) -> None:
    cursor: Mapping = CURSOR
    for tries in (1, 2):
        pulled, _ = pull(sized(5000, given), "new", cursor)
        cursor = pulled.cursor
        assert ([], 1, 0, tries) == (pulled.mails, pulled.missing, cursor["uid"], cursor["tries"])

    pulled, _ = pull(sized(5000, given), "new", cursor)

    assert {"validity": 7, "uid": 1} == pulled.cursor
    assert not pulled.more


def test_a_mail_of_no_bytes_that_has_some_is_read() -> None:
    pulled, _ = pull(sized(0, b"{5}\r\nA: b\n"))

    assert [b"A: b\n"] == [each.raw for each in pulled.mails]
