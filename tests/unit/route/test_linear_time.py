"""Every pattern and every scanner of foreign bytes takes linear time: about twice as long for twice as many bytes."""

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from ops.admin import mail_files
from ops.cli.terminal.output import printable
from ops.runtime.redact import redact_text
from pipeline.admit import admit
from pipeline.errors import Rejected, Unreadable
from pipeline.formats import cloudevents, dead_letter, extraction, forms
from pipeline.ledger.bundles.bundle_verify import Known, verify_bundle
from pipeline.ledger.notes import open_note
from pipeline.ledger.tiles import decode_entries
from pipeline.ledger.tlog_proof import read_inclusion_proof
from pipeline.mail.document import ParsingTerms, mail_document
from pipeline.mail.event_attributes import read_attributes
from pipeline.receive import receive
from pipeline.sources import KINDS, Unverified
from schemas.catalog import Catalog
from schemas.message import Message
from schemas.source import Source
from support.growth import PER_DOUBLING, Run, growth
from support.patterns import Attack, Expression, attacks, expressions, given
from workers.amqp.header_tables import decode_table
from workers.mail.imap.fetch_rows import rows

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LARGE = 64 * 1024 * 1024
RULED = Source("acme", "orders", "amqp", id="/a/b/0", subject="form:who", extensions={"region": "/r"}, max_body=LARGE)
OPEN = Source("acme", "open", "none", max_body=LARGE)
CATALOG = Catalog(1, {"acme": b"k" * 32}, {("acme", "orders"): RULED}, {})
TERMS = ParsingTerms(trusted=["mx.example"], dns=lambda _: None)
BUNDLE = b'{"v":"waxseal/bundle/v2","tenant":"acme","exported_at":"2026-06-01T00:00:00Z"}\n'
NOTE, PROOF = "text\n\n\u2014 name ", "c2sp.org/tlog-proof@v1\nindex 1\n"
SIGNED = {"content-type": "application/json", "x-twilio-signature": "AAAA", "x-slack-request-timestamp": "1"}


def document(raw: bytes) -> object:
    return mail_document(raw, TERMS, lambda: 0.0)


def head(raw: bytes) -> object:
    return [read_attributes(raw, rule, "a@b.example", "x") for rule in ("address", "thread", "plus-address", "header:Subject")]


def mbox(raw: bytes) -> object:
    return [list(mail_files._split(Path("x"), io.BytesIO(raw), quoting)) for quoting in ("mboxrd", "mboxo", "none")]


def wrapped(body: bytes) -> bytes:
    return b'{"id":"1","data":' + body


def mail(headers: bytes, body: bytes = b"") -> bytes:
    return b"From: a@b.example\r\n" + headers + b"\r\n\r\n" + body


def json_of(body: bytes) -> object:
    return [extraction.Extractor({}, body).read(rule) for rule in ("/a/b/0", "form:a", "digest:body")]


def described(kind: str) -> Callable[[bytes], object]:
    def run(body: bytes) -> object:
        source, headers = Source("acme", "x", kind, ("whsec_" + "A" * 44,), max_body=LARGE), {**SIGNED, ":path": "/"}
        form = {**headers, "content-type": forms.FORM}
        for each in (headers, form):
            with suppress(Unverified):
                KINDS[kind].verify(source, each, body, NOW)
            with suppress(Rejected, Unverified):
                receive(source, each, body, NOW, lambda: "fresh")
        return None

    return run


def batched(content_type: str) -> Callable[[bytes], object]:
    return lambda body: receive(OPEN, {"content-type": content_type}, body, NOW, lambda: "fresh")


JSON: Mapping[str, Run] = {
    "a string of quotes that never ends": lambda size: b'"' + b'\\"' * (size // 2),
    "a string of backslashes": lambda size: b'"' + b"\\" * size,
    "strings": lambda size: b"[" + b'"",' * (size // 3),
    "brackets": lambda size: b"[" * size,
    "closed brackets": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
    "objects": lambda size: b'{"a":' * (size // 5),
    "members": lambda size: b"{" + b",".join(b'"%d":0' % n for n in range(size // 8)) + b"}",
    "spaces": lambda size: b" " * size,
    "a number": lambda size: b"1" * size,
    "a fraction": lambda size: b"1." + b"1" * size + b"e1",
    "escapes": lambda size: b'"' + b"\\ud800" * (size // 6) + b'"',
    "bytes that are no text": lambda size: b"\xff" * size,
}
FORMS: Mapping[str, Run] = {
    "percents": lambda size: b"a=" + b"%" * size,
    "escapes": lambda size: b"a=" + b"%41" * (size // 3),
    "fields": lambda size: b"a=b&" * (size // 4),
    "equals signs": lambda size: b"=" * size,
    "ampersands": lambda size: b"&" * size,
    "pluses": lambda size: b"+" * size,
}
HEADERS: Mapping[str, Run] = {
    name: (lambda size, before=before, repeated=repeated: mail(before + repeated * (size // len(repeated))))
    for name, before, repeated in (
        ("a subject of encoded words", b"Subject: ", b"=?utf-8?q?a?= "),
        ("a subject of words that never end", b"Subject: ", b"=?utf-8?q?a "),
        ("a subject of beginnings of words", b"Subject: ", b"=?"),
        ("a subject of spaces", b"Subject: a", b" "),
        ("a subject that is folded for ever", b"Subject: a", b"\r\n b"),
        ("recipients", b"To: ", b"a@b.example, "),
        ("comments in comments", b"To: ", b"("),
        ("angle brackets", b"To: ", b"<"),
        ("quotes", b"To: ", b'"'),
        ("escaped quotes", b'To: "', b'\\"'),
        ("commas", b"To: ", b","),
        ("groups", b"To: ", b"a:b;"),
        ("at signs", b"To: ", b"@"),
        ("dots", b"To: a", b"."),
        ("references", b"References: ", b"<a@b.example> "),
        ("references that never end", b"References: ", b"<a"),
        ("a message id of spaces", b"Message-ID: <a", b" "),
        ("parameters", b"Content-Type: a/b", b"; c=d"),
        ("numbered parameters", b"Content-Type: a/b", b"; c*0=d"),
        ("quotes among parameters", b"Content-Type: a/b; c=", b'"'),
        ("escapes among parameters", b'Content-Type: a/b; c="', b'\\"'),
        ("semicolons", b"Content-Type: a/b", b";"),
        ("a date of digits", b"Date: ", b"1"),
        ("a date of words", b"Date: ", b"Mon, "),
        ("a trusted server's results", b"Authentication-Results: mx.example", b"; spf=pass smtp.mailfrom=a"),
        ("a trusted server's spaces", b"Authentication-Results: mx.example;", b" "),
        ("a trusted server's comments", b"Authentication-Results: mx.example; spf=pass ", b"("),
        ("a trusted server's words", b"Authentication-Results: mx.example; spf=pass ", b"a.b=c "),
        ("a trusted server's quotes", b'Authentication-Results: mx.example; spf=pass reason="', b'\\"'),
        ("a DKIM signature's tags", b"DKIM-Signature: v=1", b"; a=b"),
        ("a DKIM signature's spaces", b"DKIM-Signature: v=1;", b" "),
        ("ARC seals", b"ARC-Seal: i=1", b"\r\nARC-Seal: i=2"),
        ("names without values", b"X:", b"\r\nX:"),
        ("spam scores", b"X-Spam-Status: ", b"score= "),
        ("lines that are no headers", b"", b"x\r\n"),
        ("a line without an end", b"", b"x"),
        ("CRs", b"", b"\r"),
        ("CR CR LF", b"X: y", b"\r\r\n"),
    )
}
BODIES: Mapping[str, Run] = {
    name: (lambda size, head=head, before=before, each=each: mail(head, before + each * (size // len(each))))
    for name, head, before, each in (
        ("beginnings of uuencode", b"X: y", b"", b"begin 644 x\n"),
        ("uuencoded lines", b"X: y", b"begin 644 x\n", b"#86)C\n"),
        ("ends of uuencode", b"X: y", b"begin 644 x\n#86)C\n", b"end "),
        ("boundaries", b"Content-Type: multipart/mixed; boundary=B", b"", b"--B\r\n"),
        ("nearly boundaries", b"Content-Type: multipart/mixed; boundary=B", b"", b"--C\r\n"),
        ("dashes", b"Content-Type: multipart/mixed; boundary=B", b"", b"-"),
        ("spaces", b"X: y", b"", b" "),
        ("nearly too many spaces", b"X: y", b"", b" " * 1999 + b"x"),
        ("line ends", b"X: y", b"", b"\r\n"),
        ("HTML tags", b"Content-Type: text/html", b"", b"<a>"),
        ("HTML tags that are never closed", b"Content-Type: text/html", b"", b"<a "),
        ("HTML attributes", b"Content-Type: text/html", b"<a", b" b=c"),
        ("HTML entities", b"Content-Type: text/html", b"", b"&amp"),
        ("HTML comments", b"Content-Type: text/html", b"", b"<!--"),
        ("HTML lists", b"Content-Type: text/html", b"", b"<li>a"),
        ("HTML styles", b"Content-Type: text/html", b"<p style='", b"display :"),
        ("base64 padding", b"Content-Transfer-Encoding: base64", b"", b"YQ=="),
        ("quoted-printable", b"Content-Transfer-Encoding: quoted-printable", b"", b"=4"),
        ("8 bits", b"X: y", b"", b"\xe4\xf6 "),
        ("lines of a report", b"Content-Type: message/delivery-status", b"", b"Final-Recipient: rfc822; a@b.example\n\n"),
    )
}
MBOXES: Mapping[str, Run] = {
    "separators": lambda size: b"From a Mon Jun  1 10:00:00 2026\n\n" * (size // 33),
    "nearly separators": lambda size: b"From here\n\n" * (size // 11),
    "quotes": lambda size: b">" * size + b"From ",
    "quoted lines": lambda size: b">From x\n" * (size // 8),
    "weekdays": lambda size: b"From " + b"Mon " * (size // 4) + b"\n",
    "empty lines": lambda size: b"\n" * size,
    "headers": lambda size: b"From a Mon Jun  1 10:00:00 2026\n" + b"A" * size,
}
ROWS: Mapping[str, Callable[[int], Any]] = {
    "words": lambda size: [b"1 (" + b"A 1 " * (size // 4) + b")"],
    "quotes": lambda size: [b"1 (A " + b'"' * size + b")"],
    "parentheses": lambda size: [b"1 " + b"(" * size],
    "a name": lambda size: [b"1 (" + b"A" * size],
    "a section": lambda size: [(b"1 (BODY[" + b"[" * size + b" {1}", b"x"), b")"],
    "rows": lambda size: [b"1 (UID 5)"] * (size // 9),
    "rows in another form": lambda size: [b"1 (FLAGS () UID 5)"] * (size // 18),
}
TEXTS: Mapping[str, Callable[[int], Any]] = {
    "URLs": lambda size: "://a:" * (size // 5),
    "passwords": lambda size: "password=" * (size // 9),
    "quotes": lambda size: "secret='" * (size // 8),
    "spaces": lambda size: "token" + " " * size,
    "words": lambda size: "a" * size,
}


def table(size: int) -> bytes:
    fields = b"\x01aS" + pack(">I", 1) + b"x"
    return pack(">I", len(fields) * (size // 8)) + fields * (size // 8)


def nested_table(size: int) -> bytes:
    inner = b""
    while len(inner) < size:
        inner = b"\x01aF" + pack(">I", len(inner)) + inner
    return pack(">I", len(inner)) + inner


def message(body: bytes, **fields: Any) -> Message:
    return Message("acme.orders", body, **{"message_id": "1", **fields})


SCANNERS: tuple[tuple[str, Callable[[Any], object], Mapping[str, Callable[[int], Any]]], ...] = (
    ("a structured event", lambda body: cloudevents.structured(wrapped(body)), JSON),
    ("a structured event, whole", cloudevents.structured, JSON),
    ("a batch", lambda body: cloudevents.batch(b"[" + body), JSON),
    ("a structured event over HTTP", batched(cloudevents.STRUCTURED), JSON),
    ("a body over HTTP", batched("application/json"), JSON),
    (
        "a structured event over AMQP",
        lambda body: admit(message(body, content_type=cloudevents.STRUCTURED), CATALOG, NOW),
        JSON,
    ),
    ("a plain message over AMQP", lambda body: admit(message(body), CATALOG, NOW), {**JSON, **FORMS}),
    ("rules", json_of, {**JSON, **FORMS}),
    *((f"kind {kind}", described(kind), {**JSON, **FORMS}) for kind in KINDS),
    ("AMQP's tables", lambda encoded: decode_table(encoded, 0), {"fields": table, "tables in tables": nested_table}),
    ("tags of a dead letter", dead_letter.tag, {"texts": lambda size: {str(n): "\ud800" for n in range(size // 10)}}),
    ("the head of a mail", head, HEADERS),
    ("a mail's headers", document, HEADERS),
    ("a mail's body", document, BODIES),
    ("an mbox", mbox, MBOXES),
    ("IMAP's rows", lambda answer: list(rows(answer)), ROWS),
    ("redaction of logs", redact_text, TEXTS),
    ("what a terminal is shown", printable, TEXTS),
    ("a signed note", lambda raw: open_note(NOTE + raw, ()), TEXTS),
    ("a proof", lambda raw: read_inclusion_proof(PROOF + raw), TEXTS),
    ("a bundle of entries", lambda raw: decode_entries(raw, 1), {"empty ones": bytes}),
    ("a bundle", lambda raw: verify_bundle(io.BytesIO(BUNDLE + raw), Known(), lambda _: None), JSON),
)


@pytest.mark.slow
@pytest.mark.parametrize("expression", expressions(), ids=lambda each: each.where)
def test_a_pattern_takes_no_more_than_twice_the_time_for_twice_the_text(expression: Expression) -> None:
    assert [] == list(steep(expression))


def steep(expression: Expression, tries: int = 3) -> Iterator[tuple[str, Attack, float]]:
    for method, run in expression.runs():
        for attack in attacks(expression.pattern):
            found = growth(run, lambda size: given(expression.pattern, attack.text(size)), tries)  # noqa: B023
            if found > PER_DOUBLING:
                yield method, attack, found


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("finditer", r'"(?:[^"\\]|\\.)*"|[\[{]'),
        ("sub", r"\s+$"),
        ("search", r"<[^>]*>"),
        ("findall", r"(\w+)@"),
        ("match", r"(?:a|a)*b"),
        ("fullmatch", r"(?:\d+,?)*;"),
        ("search", r"x*y"),
    ],
)
def test_a_pattern_that_takes_the_square_is_found(method: str, text: str) -> None:
    expression = Expression("here", re.compile(text), (method,))

    assert next(steep(expression, tries=1), None)


@pytest.mark.parametrize(("name", "run", "given_"), SCANNERS, ids=[name for name, _, _ in SCANNERS])
def test_a_scanner_takes_no_more_than_twice_the_time_for_twice_the_bytes(
    name: str, run: Callable[[Any], object], given_: Mapping[str, Callable[[int], Any]]
) -> None:
    def judged(text: Any) -> None:
        with suppress(Rejected, Unreadable):
            run(text)

    found = {attack: growth(judged, make) for attack, make in given_.items()}

    assert {} == {attack: each for attack, each in found.items() if each > PER_DOUBLING}, name
