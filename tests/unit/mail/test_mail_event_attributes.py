import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mail.address_list import read_list
from pipeline.mail.document import ParsingTerms, mail_document
from pipeline.mail.event_attributes import MAX_SUBJECT, event_id, read_attributes

MAIL = (
    b"Delivered-To: support+order-7@acme.example\r\n"
    b"From: =?utf-8?q?J=C3=B6rg?= <Joerg@Example.org>\r\n"
    b"To: Support <support@acme.example>\r\n"
    b"Message-ID: <Third@Example.org>\r\n"
    b"In-Reply-To: <second@example.org>\r\n"
    b"References: <First@example.org>\r\n <second@example.org>\r\n"
    b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n aus Berlin\r\n"
    b"X-Ticket: T-99\r\n"
    b"\r\n"
    b"From: not@a.header\r\n"
)


def subject(rule: str, raw: bytes = MAIL) -> str:
    return read_attributes(raw, rule, "support@acme.example", "support").subject


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("address", "joerg@example.org"),
        ("thread", "first@example.org"),
        ("plus-address", "order-7"),
        ("header:X-Ticket", "T-99"),
        ("header: subject", "Grüße aus Berlin"),
        ("all of it", "all of it"),
    ],
)
def test_a_rule_says_what_the_subject_is(rule: str, expected: str) -> None:
    assert expected == subject(rule)


CEO, EVIL = "ceo@bank.example", "attacker@evil.example"


@pytest.mark.parametrize(
    ("header", "address", "name"),
    [
        (b"ceo@bank.example <attacker@evil.example>", EVIL, CEO),
        (b'"ceo@bank.example" <attacker@evil.example>', EVIL, CEO),
        (b"<ceo@bank.example> <attacker@evil.example>", CEO, "<attacker@evil.example>"),
        (b"<> <attacker@evil.example>", EVIL, ""),
        (b"<ceo@bank.example, attacker@evil.example>", EVIL, ""),
        (b"<a@[IPv6:2001:db8::1]>", "a@[ipv6:2001:db8::1]", ""),
        (b"The ceo@bank.example Office <attacker@evil.example>", EVIL, "The ceo@bank.example Office"),
        (b"ceo@bank.example attacker@evil.example", EVIL, CEO),
        (b"=?utf-8?Q?ceo=40bank.example?= <attacker@evil.example>", EVIL, CEO),
        (b"=?utf-8?Q?=3Cceo=40bank.example=3E=2C?= <attacker@evil.example>", EVIL, "<ceo@bank.example>,"),
        (b"=?utf-8?Q?x<ceo@bank.example>?= <attacker@evil.example>", CEO, None),
        (b"=?utf-8?B?Y2VvQGJhbmsuZXhhbXBsZQ0KRnJvbTo=?= <attacker@evil.example>", EVIL, "ceo@bank.example From:"),
        (b"(ceo@bank.example) attacker@evil.example", EVIL, CEO),
        (b"attacker@evil.example (ceo@bank.example)", EVIL, CEO),
        (b"attacker@evil.example (ceo (Chief \\) of) <ceo@bank.example>)", EVIL, "ceo (Chief ) of) <ceo@bank.example>"),
        (b"(ceo@bank.example <attacker@evil.example>", EVIL, "(ceo@bank.example"),
        (b'"ceo@bank.example <attacker@evil.example>', EVIL, '"ceo@bank.example'),
        (b"ceo@bank.example: attacker@evil.example;", EVIL, ""),
        (b"Board: ceo@bank.example <attacker@evil.example>, x@y.example;", EVIL, CEO),
        (b"<@bank.example,@x.example:attacker@evil.example>", EVIL, ""),
        (b"ceo@bank.example <@bank.example:attacker@evil.example>", EVIL, CEO),
        (b"< attacker @ evil . example >", EVIL, ""),
        (b"ceo@bank.example\0 <attacker@evil.example>", EVIL, CEO),
        (b"ceo@bank.example\r <attacker@evil.example>", EVIL, CEO),
        (b"ceo@bank.example\r\n <attacker@evil.example>", EVIL, CEO),
        (b"Attacker <attacker@evil.example", EVIL, "Attacker"),
        (b"<<attacker@evil.example>>", EVIL, ""),
        (b"attacker@evil.example\r\nFrom: ceo@bank.example", EVIL, ""),
        (b'"attacker\r\nFrom: ceo@bank.example', "ceo@bank.example", ""),
        (b"Attacker; ceo@bank.example", "ceo@bank.example", ""),
        (b'"a@b c"@y.example', '"a@b c"@y.example', ""),
        (b'"Doe, \\"J\\"" <j@y.example>', "j@y.example", 'Doe, "J"'),
        (b"=?utf-8?Q?Doe,_J?= <j@y.example>", "j@y.example", "Doe, J"),
        (b"=?utf-8?Q?ceo=40bank.example?=", "support", None),
        (b"ceo <>", "support", None),
        (b"root (Charlie Root)", "support", None),
    ],
)
def test_the_address_is_what_is_in_angle_brackets_and_the_document_says_the_same(
    header: bytes, address: str, name: str | None
) -> None:
    raw = b"From: " + header + b"\r\nSubject: s\r\n\r\nhello\r\n"
    document = mail_document(raw, ParsingTerms(), lambda: 0.0)
    first = next((each for each in document.from_ if "@" in each.address), None)

    assert address == subject("address", raw)
    assert address == (first.address.lower() if first else "support")
    assert name is None or (first is not None and name == first.name)


@pytest.mark.parametrize("mark", ["a@", "@ ", "<", '<"', "(", '"', "\\(", "=?u?Q?", "=", ":", ";", "a@b:", "<a@b>", "> <"])
def test_a_list_of_addresses_is_read_in_time_that_is_linear(mark: str) -> None:
    began = time.thread_time()
    for _ in read_list(mark * (100_000 // len(mark))):
        pass

    assert time.thread_time() - began < 2


def test_a_bare_carriage_return_makes_no_second_sender() -> None:
    raw = b"Subject: s\rFrom: ceo@bank.example\r\nFrom: attacker@evil.example\r\n\r\nhello"

    assert EVIL == subject("address", raw)
    assert (EVIL,) == tuple(each.address for each in mail_document(raw, ParsingTerms(), lambda: 0.0).from_)
    assert "ceo@bank.example" == subject("address", b"Subject: s\rFrom: ceo@bank.example\r\rhello\r")


@pytest.mark.parametrize("rule", ["address", "plus-address", "header:X-Ticket"])
def test_where_a_rule_finds_nothing_the_subject_is_the_mailbox(rule: str) -> None:
    assert subject(rule, b"no header at all") == "support"


def test_a_mail_without_any_id_is_a_thread_of_its_own() -> None:
    raw = b"From: a@b.example\r\n\r\nhello\r\n"

    assert event_id(raw) == subject("thread", raw)


def test_a_reply_without_references_belongs_to_what_it_replies_to() -> None:
    assert subject("thread", b"In-Reply-To: <One@b.example>\n\n") == "one@b.example"


def test_a_tag_of_the_own_address_comes_before_that_of_another() -> None:
    raw = b"To: other+x@b.example, support+y@acme.example\n\n"

    assert subject("plus-address", raw) == "y"


def test_a_header_in_utf_8_is_read_as_such() -> None:
    assert subject("header:X-Ticket", "X-Ticket: Größe\r\n\r\n".encode()) == "Größe"


def test_two_long_subjects_that_differ_at_their_end_stay_apart() -> None:
    one, other = (subject("header:X-Ticket", b"X-Ticket: " + b"x" * 10_000 + end + b"\n\n") for end in (b"1", b"2"))

    assert one != other


def test_a_long_subject_is_its_digest() -> None:
    raw = b"X-Ticket: " + b"x" * (MAX_SUBJECT + 1) + b"\n\n"

    assert subject("header:X-Ticket", raw).startswith("sha256:")


def test_the_message_id_is_without_brackets_and_case() -> None:
    assert read_attributes(MAIL, "address", "a", "b").message_id == "third@example.org"
    assert read_attributes(b"Message-ID: no-brackets@X\n\n", "address", "a", "b").message_id == "no-brackets@x"
    assert read_attributes(b"Message-ID:\n\n", "address", "a", "b").message_id is None


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_what_stands_in_the_body_is_no_header(line_end: bytes) -> None:
    assert subject("header:X-Ticket", b"A: b" + line_end * 2 + b"X-Ticket: no" + line_end) == "support"


@given(st.binary(max_size=400), st.sampled_from(["address", "thread", "plus-address", "header:Subject", "\x00"]))
def test_whatever_the_bytes_there_is_a_subject_that_can_be_stored(raw: bytes, rule: str) -> None:
    for prefix in (b"", b"Subject: =?", b"From: ", b"References: <", b"To: a+"):
        read = read_attributes(prefix + raw, rule, "support@acme.example", "support")

        assert 0 < len(read.subject) <= MAX_SUBJECT + 8
        assert read.subject.isprintable() or read.subject.encode()
        assert "\x00" not in read.subject + (read.message_id or "")


def test_a_message_id_without_end_is_its_digest() -> None:
    read = read_attributes(b"Message-ID: <" + b"x" * 300 + b"@y>\n\n", "address", "a", "b")

    assert read.message_id is not None
    assert read.message_id.startswith("sha256:")
