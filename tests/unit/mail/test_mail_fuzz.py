import time
from contextlib import suppress
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.admit import admit
from pipeline.errors import Rejected
from pipeline.mail.document import ParsingTerms, mail_document
from pipeline.mail.event_attributes import MAX_SUBJECT, event_id, read_attributes
from schemas.catalog import Catalog
from schemas.mail_document import view
from schemas.mailbox import CONTENT_TYPE, EVENT_TYPE
from schemas.message import Message
from schemas.source import Source
from support.mail.nasty import NASTY

MANY = settings(max_examples=5 * settings.default.max_examples)  # of the profile that this run has
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CATALOG = Catalog(1, {"acme": b"k" * 32}, {("acme", "support"): Source("acme", "support", "imap", max_body=64 << 20)}, {})
TERMS = ParsingTerms(trusted=["mx.y.example"], dns=lambda _name: b"v=DKIM1; k=rsa; p=AAAA", seconds=5)

FRAGMENTS = st.sampled_from(
    [
        *(b"From: ", b"To: ", b"Subject: ", b"Date: ", b"Message-ID: ", b"References: ", b"Precedence: ", b"X-Spam-Status: "),
        *(b"Content-Type: ", b"multipart/mixed; boundary=B", b"text/html", b"text/plain; charset=", b"utf-7", b"utf-16"),
        *(b"message/rfc822", b"message/delivery-status", b"application/ms-tnef", b"x\x9f\x3e\x22"),
        *(b"Content-Transfer-Encoding: ", b"base64", b"quoted-printable", b"x-uuencode", b"begin 644 x\n", b"end\n"),
        *(b"Content-Disposition: attachment; ", b"filename*0*=utf-8''%", b"filename=", b"=?utf-8?Q?", b"=?utf-8?B?", b"?="),
        *(b"--B", b"--B--", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff", b"\xc3\xbc", b"a@b.example", b"9" * 30),
        *(b"<", b">", b'"', b"(", b")", b";", b",", b":", b"@", b"=", b" ", b"\t", b"<table><tr><td>", b"<!--", b"&#x0;"),
        *(b"DKIM-Signature: ", b"ARC-Seal: i=1; ", b"Authentication-Results: mx.y.example; ", b"spf=pass "),
        *(b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=x.example; s=s; h=from; bh=AAAA; b=AAAA", b"Mon, 1 Jun 2026 10:00:00 "),
    ]
)
MAILS = st.one_of(
    st.binary(max_size=2_000),
    st.lists(FRAGMENTS, max_size=60).map(b"".join),
    st.lists(st.one_of(FRAGMENTS, st.binary(max_size=20)), max_size=60).map(b"".join),
)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A nasty mail with a piece replaced by one of another mail, or removed."""
    small = [raw for raw in NASTY.values() if len(raw) < 20_000]
    one, other = draw(st.sampled_from(small)), draw(st.sampled_from(small))
    at, to = draw(st.integers(0, len(one))), draw(st.integers(0, len(one)))
    start, end = draw(st.integers(0, len(other))), draw(st.integers(0, len(other)))
    return one[:at] + other[start:end] + one[to:]


def bare(raw: bytes) -> None:
    """Checks what must hold for a document of any bytes."""
    began = time.thread_time()
    document = mail_document(raw, TERMS, time.thread_time)
    written = orjson.dumps(view(document), option=orjson.OPT_SORT_KEYS)

    assert b"\\u0000" not in written
    assert "unparsed" not in document.flags, document.notes
    assert len(raw) == document.size
    assert time.thread_time() - began < 20


@MANY
@example(b"From: a\r\nSubject: =?utf-8?Q?=?==?utf-8?B?==?=\r\n\r\n")
@given(MAILS)
def test_any_bytes_become_a_document(raw: bytes) -> None:
    bare(raw)


@MANY
@given(bent())
def test_a_mail_that_was_bent_becomes_a_document(raw: bytes) -> None:
    bare(raw)


@MANY
@given(st.one_of(MAILS, bent()), st.sampled_from(["address", "thread", "plus-address", "header:Subject", "header:To", "x"]))
def test_any_bytes_are_admitted_as_an_event_of_a_mailbox(raw: bytes, rule: str) -> None:
    read = read_attributes(raw, rule, "support@y.example", "support")
    attributes = {"specversion": "1.0", "id": event_id(raw), "source": "support", "type": EVENT_TYPE, "subject": read.subject}
    headers = {f"cloudEvents:{name}": value for name, value in attributes.items()}

    (event,) = admit(Message("acme.support", raw, CONTENT_TYPE, headers=headers, trusted=True), CATALOG, NOW)

    assert raw == event.body
    assert (0, True) < (len(event.subject), len(event.subject) <= MAX_SUBJECT)
    assert read.subject == event.subject


HEADERS = st.dictionaries(
    st.one_of(
        st.sampled_from(["cloudEvents:id", "cloudEvents_subject", "cloudEvents:time", "subject", "x"]), st.text(max_size=10)
    ),
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=30), st.binary(max_size=30), st.datetimes()),
    max_size=8,
)
TYPES = st.sampled_from([None, CONTENT_TYPE, "application/cloudevents+json", "application/cloudevents-batch+json", "\0", "a/b"])


@MANY
@given(
    st.sampled_from(["acme.support", "acme.orders", "acme.", "", ".", "other.support", "acme.\ud800"]),
    st.one_of(st.binary(max_size=200), st.sampled_from([b"{}", b"[]", b'[{"id":1}]', b'{"id":"1","source":"s","type":"t"}'])),
    TYPES,
    HEADERS,
    st.one_of(st.none(), st.integers(-(2**63), 2**63)),
    st.booleans(),
)
def test_whatever_is_published_is_admitted_or_rejected(
    key: str, body: bytes, type: str | None, headers: dict, timestamp: int | None, trusted: bool
) -> None:
    sources = {**CATALOG.sources, ("acme", "orders"): Source("acme", "orders", "amqp")}
    message = Message(key, body, type, None, headers, "id", "type", timestamp, trusted=trusted)
    events = []
    with suppress(Rejected):
        events = admit(message, Catalog(1, CATALOG.tenants, sources, {}), NOW)
    for event in events:
        assert event.subject
        assert event.id
        assert orjson.dumps(dict(event.attributes))


@pytest.mark.parametrize("name", ["nested 3,000 deep", "20,000 recipients", "winmail.dat of 100,000 objects"])
def test_what_holds_for_any_bytes_holds_for_the_largest(name: str) -> None:
    bare(NASTY[name])
