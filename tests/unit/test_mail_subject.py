from datetime import UTC, datetime

import pytest
from tests_nasty import PLAIN, headed

from pipeline.mail.fields import date, message_id
from pipeline.mail.subject import MAX_SUBJECT, check_rule, subject_of

MAIL = headed(
    b"From: Other <other@x.example>",
    b"To: Acme <support+4711@acme.example>, someone@y.example",
    b"Delivered-To: support+Inner@acme.example",
    b"Message-ID: <3@x.example>",
    b"In-Reply-To: <2@x.example>",
    b"References: <1@x.example>\r\n <2@x.example>",
    b"X-Ticket: =?utf-8?Q?T-4=C3=BC?=",
)


@pytest.mark.parametrize(
    ("rule", "subject"),
    [
        ("address", "a@x.example"),
        ("thread", "<1@x.example>"),
        ("plus-address", "inner"),
        ("header:X-Ticket", "T-4ü"),
        ("header:x-ticket", "T-4ü"),
        ("header:X-None", "a@x.example"),
        ("support mails", "support mails"),
    ],
)
def test_a_rule_gives_the_subject(rule: str, subject: str) -> None:
    assert subject == subject_of(MAIL, rule)


def test_the_address_is_in_lower_case_so_that_one_person_has_one_chain() -> None:
    assert "ann@x.example" == subject_of(b"From: ANN <Ann@X.Example>\r\n\r\n", "address")


@pytest.mark.parametrize(
    ("raw", "thread"),
    [
        (headed(b"Message-ID: <3@x>", b"In-Reply-To: <2@x>"), "<2@x>"),
        (headed(b"Message-ID: <3@x>"), "<3@x>"),
        (headed(b"Message-ID: <3@x>", b"References: "), "<3@x>"),
    ],
)
def test_a_thread_is_named_by_the_mail_that_began_it(raw: bytes, thread: str) -> None:
    assert thread == subject_of(raw, "thread")


def test_a_mail_without_any_id_is_a_thread_of_its_own() -> None:
    one, other = subject_of(headed(), "thread"), subject_of(headed(body=b"another"), "thread")

    assert one.startswith("sha256:")
    assert one != other


@pytest.mark.parametrize("rule", ["address", "plus-address", "header:X-None"])
def test_where_there_is_nobody_the_subject_is_unknown(rule: str) -> None:
    assert "unknown" == subject_of(b"\r\nno header", rule)


def test_without_a_tag_the_plus_address_is_the_address() -> None:
    assert "a@x.example" == subject_of(PLAIN, "plus-address")


def test_subjects_that_are_too_long_are_cut_and_stay_apart() -> None:
    one, other = (subject_of(headed(b"X-Long: " + b"x" * 5000 + end), "header:X-Long") for end in (b"1", b"2"))

    assert (MAX_SUBJECT, MAX_SUBJECT) == (len(one), len(other))
    assert one != other


@pytest.mark.parametrize("rule", ["address", "thread", "plus-address", "header:X-Ticket", "support", "a fixed text"])
def test_good_rules_are_taken(rule: str) -> None:
    check_rule(rule)


@pytest.mark.parametrize("rule", ["", " ", "header:", "header:a b", "header:ä", "two\nlines", "x" * 256, " padded", "a\0b"])
def test_bad_rules_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_rule(rule)


def test_the_message_id_and_the_date_are_read_without_anything_else() -> None:
    assert ("<1@x.example>", datetime(2026, 6, 1, 10, tzinfo=UTC)) == (message_id(PLAIN), date(PLAIN))
    assert (None, None) == (message_id(b""), date(b""))
