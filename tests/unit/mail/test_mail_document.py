import base64
import itertools
import re
import time
from collections.abc import Callable
from hashlib import sha256

import dkim
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mail import mime
from pipeline.mail.authentication import MAX_SIGNATURES, DnsAway
from pipeline.mail.document import ParsingTerms, mail_document, unparsed
from schemas.mail_document import Address, Attachment, MailDocument, Verdict, view
from support.mail.nasty import ARF, DSN, MDN, NASTY, PLAIN, headed, html, multipart, nested, part, report, uu

TRUSTED = ParsingTerms(trusted=["MX.y.example"])


def read(raw: bytes, terms: ParsingTerms = TRUSTED) -> MailDocument:
    return mail_document(raw, terms, lambda: 0.0)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def private(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def record(key: rsa.RSAPrivateKey) -> bytes:
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def signed(raw: bytes, key: rsa.RSAPrivateKey) -> bytes:
    return dkim.sign(raw, b"s1", b"x.example", private(key), include_headers=[b"from", b"subject"]) + raw


def dns_of(found: bytes | None) -> Callable[[str], bytes | None]:
    return lambda name: found if name == "s1._domainkey.x.example" else None


def test_a_plain_mail_is_read_whole() -> None:
    raw = PLAIN + b"Cc: C <c@y.example>\r\nReply-To: r@x.example\r\nIn-Reply-To: <0@x.example>\r\n"
    raw += b"References: <0@x.example> <00@x.example>\r\n\r\nhello\r\nworld\r\n"

    document = read(raw)

    assert (Address("", "a@x.example"),) == document.from_
    assert (Address("", "b@y.example"),) == document.to
    assert (Address("C", "c@y.example"),) == document.cc
    assert (Address("", "r@x.example"),) == document.reply_to
    assert ("s", "2026-06-01T10:00:00Z", "<1@x.example>") == (document.subject, document.date, document.message_id)
    assert (("<0@x.example>",), ("<0@x.example>", "<00@x.example>")) == (document.in_reply_to, document.references)
    assert ("hello\nworld", "plain", ()) == (document.text, document.text_from, document.flags)
    assert (len(raw), sha256(raw).hexdigest()) == (document.size, document.sha256)


def test_the_document_as_json_says_from_and_which_parser_made_it() -> None:
    document = orjson.loads(orjson.dumps(view(read(PLAIN + b"\r\nhello"))))

    assert ([{"name": "", "address": "a@x.example"}], 2) == (document["from"], document["parser"])
    assert "waxseal/mail-document/v1" == document["v"]


def test_an_attachment_has_its_name_its_size_and_its_digest() -> None:
    encoded = part(
        b"application/pdf",
        base64.encodebytes(b"%PDF"),
        b"Content-Transfer-Encoding: base64",
        b"Content-Disposition: attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf",
    )

    document = read(multipart(part(b"text/plain", b"see attachment"), encoded))

    assert (Attachment("Grüße.pdf", "application/pdf", 4, sha256(b"%PDF").hexdigest()),) == document.attachments
    assert "see attachment" == document.text


def test_an_attached_mail_is_an_attachment_to_the_byte_and_its_text_is_not_this_mails() -> None:
    inner = PLAIN + b"\r\ninner"

    document = read(multipart(part(b"text/plain", b"outer"), part(b"message/rfc822", inner)))

    assert [("message/rfc822", len(inner), sha256(inner).hexdigest())] == [
        (each.content_type, each.size, each.sha256) for each in document.attachments
    ]
    assert "outer" == document.text


def test_of_alternatives_the_plain_text_is_taken_and_html_where_that_says_nothing() -> None:
    plain, rich = part(b"text/plain", b"plain"), part(b"text/html", b"<p>rich")
    blank = part(b"text/plain", b" \r\n ")

    documents = [read(multipart(each, rich, subtype=b"alternative")) for each in (plain, blank)]

    assert [("plain", "plain"), ("rich", "html")] == [(each.text, each.text_from) for each in documents]


def test_html_becomes_lines_without_what_is_hidden_or_run() -> None:
    document = read(
        html(
            b"<p>Dear <b>all</b>,<script>x()</script>"
            b"<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table><p style='display: none'>no</p>"
        )
    )

    assert ["Dear all,", "", "a b", "c"] == (document.text or "").splitlines()


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("a header block of 1 MB", "header_block_too_large"),
        ("a header of 1 MB", "header_too_long"),
        pytest.param("100,000 headers without values", "too_many_headers"),
        ("nested 3,000 deep", "too_deep"),
        ("5,000 parts", "too_many_parts"),
        pytest.param("1,600,000 lines", "too_many_lines"),
        ("20,000 recipients", "too_many_addresses"),
        ("10,000 references", "too_many_references"),
        ("a line of 2 MB", "text_cut"),
        ("no Message-ID", "no_message_id"),
        ("no sender", "no_from"),
        ("two senders", "duplicate_from"),
        ("two Message-IDs", "duplicate_header"),
        ("NUL in the header", "nul"),
        ("NUL in the body", "nul"),
        ("bare LF in a header", "bare_line_ends"),
        ("CR CR LF", "bare_line_ends"),
        ("a newline in an encoded word", "line_end_in_word"),
        ("a newline in an encoded name", "line_end_in_word"),
        ("8-bit header", "raw_8bit_header"),
        ("Latin-1 said to be UTF-8", "bad_charset"),
        ("a charset that there is not", "unknown_charset"),
        ("an encoded word in zlib", "unknown_charset"),
        ("an encoded word in idna", "unknown_charset"),
        ("a charset that nobody said", "guessed_charset"),
        ("base64 cut off", "bad_encoding"),
        ("base64 with dirt", "bad_encoding"),
        ("bad base64 in an encoded word", "bad_encoding"),
        ("an unknown encoding", "unknown_encoding"),
        ("no boundary", "malformed_mime"),
        ("no end", "malformed_mime"),
        ("RFC 2231 with a number of 5,000 digits", "malformed_mime"),
        ("comments in comments", "malformed_address"),
        ("two addresses in one", "malformed_address"),
        ("an address before an address", "malformed_address"),
        ("an address before an address", "address_in_name"),
        ("an address in quotes before an address", "address_in_name"),
        ("an address in an encoded word", "address_in_name"),
        ("two addresses in angle brackets", "malformed_address"),
        ("quotes that are never closed", "malformed_address"),
        ("UTF-8 said to be ASCII", "bad_charset"),
        ("Latin-1 said to be ASCII", "bad_charset"),
        ("a Message-ID without brackets", "malformed_message_id"),
        ("a date in words", "bad_date"),
        ("a date with a zone beyond a day", "bad_date"),
        ("a mail that refers to itself", "refers_to_itself"),
        ("winmail.dat of nothing", "malformed_tnef"),
        ("winmail.dat of 100,000 objects", "malformed_tnef"),
        ("uuencoded without an end", "malformed_uuencode"),
        ("HTML nested 50,000 deep", "malformed_html"),
        ("results that are none", "malformed_authentication_results"),
        ("results with comments in comments", "malformed_authentication_results"),
        ("no header", "no_headers"),
        ("no line between header and body", "malformed_header"),
        ("100 signatures", "too_many_signatures"),
    ],
)
def test_what_is_odd_is_flagged(name: str, flag: str) -> None:
    assert flag in read(NASTY[name], ParsingTerms(trusted=["mx.y.example"], dns=lambda _: None)).flags


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("8-bit header", "Grüße"),
        ("UTF-8 header", "Grüße 🎉"),
        ("a newline in an encoded word", "a Bcc: x@z.example"),
        ("an encoded word with a language", "Grüße"),
        ("raw bytes in an encoded word", "Grüße!П"),
        ("raw UTF-8 in an encoded word", "Grüße"),
        ("UTF-8 in an encoded word of ASCII", "Grüße"),
        ("a UTF-8 header with what was lost before", "\ufffd½\ufffd"),
        ("a UTF-8 header that is cut", "Ein längerer Gruß an alle für \ufffd"),
        ("a character cut over two words", "ü€"),
        ("an encoded word without its end", "=?utf-8?B?aGVsbG8"),
        ("controls in the subject", "[31mred [0m"),
        ("line separators in the subject", "a b c d"),
    ],
)
def test_a_subject_line_is_one_line_whatever_it_holds(name: str, subject: str) -> None:
    assert subject == read(NASTY[name]).subject


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("RFC 2231 in pieces", ["Grüße.pdf"]),
        ("RFC 2231 out of order", ["abck"]),
        ("RFC 2231 before what it replaces", ["Grüße.pdf"]),
        ("RFC 2231 after what it replaces", ["Grüße.pdf"]),
        ("a text with a name", ["body.txt"]),
        ("a name in 8 bits", ["Grüße.pdf"]),
        ("a name in Latin-1", ["Grüße.pdf"]),
        ("a name with a NUL", ["a.txt .exe"]),
        ("a name written from right to left", ["a gpj.exe"]),
        ("winmail.dat", ["secret plan.txt"]),
        ("uuencoded in the text", ["plan.txt"]),
        ("uuencoded twice", ["1.txt", "2.txt"]),
    ],
)
def test_attachments_have_the_names_that_they_were_given(name: str, names: list[str]) -> None:
    assert names == [each.name for each in read(NASTY[name]).attachments]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Latin-1 said to be ASCII", "Grüße"),
        ("UTF-8 said to be ASCII", "Grüße"),
        ("ASCII by its other name", "Grüße"),
        ("windows-874", "สวัสดี€"),
        ("windows-31j", "①こんにちは"),
        ("Latin-1 as l1", "€ “q”"),
        ("Latin-1 as csISOLatin1", "€ “q”"),
        ("Latin-1 as latin-1", "€ “q”"),
        ("x-mac-cyrillic", "Привет"),
        ("HZ", "你好"),
        ("a space before every colon", "hello"),
        ("a line that is none before the content type", "hello"),
        ("a first line that is no header", "Hello all,\nNow : how are you?\n\nBye"),
        ("a content type behind a bare CR", "<b>x</b>"),
        ("no line between header and body", "this is not a header\nand no empty line came before it"),
        ("a folded boundary", "hello"),
        ("quoted-printable whose lines end in CR", "one line and another\ntwo"),
        ("a boundary folded where it has no space", "hello"),
        ("a boundary folded at another space", "hello"),
        ("a text with a name", "hello"),
        ("ks_c_5601-1987", "안녕하세요"),
        ("iso-8859-8-i", "שלום"),
        ("unicode-1-1-utf-7", "Hi Mom -☺-!"),
        ("gb2312 beyond gb2312", "镕"),
        ("base64 joined", "helloworld"),
        ("base64 cut off", "hello wor"),
        ("a UTF-8 mark first", "hello"),
        ("a quoted mbox line first", "hello"),
        ("uuencoded as a part", "hello"),
        ("HTML and a plain footer", "the message\n\nthe list's footer"),
        ("HTML with an XML declaration", "hello"),
        ("a boundary like a pattern", "hi"),
        ("text before and after", "hello"),
        ("no boundary", "--B\n\nhello\n--B--"),
    ],
)
def test_the_text_is_found(name: str, text: str) -> None:
    assert text == read(NASTY[name]).text


def test_what_was_inside_of_tnef_and_uuencode_has_its_own_digest() -> None:
    tnef, old = read(NASTY["winmail.dat"]).attachments[0], read(PLAIN + b"\r\n" + uu(b"data")).attachments[0]

    assert (8, sha256(b"the plan").hexdigest(), "tnef") == (tnef.size, tnef.sha256, tnef.found_in)
    assert (4, sha256(b"data").hexdigest(), "uuencode") == (old.size, old.sha256, old.found_in)


def test_a_careful_reading_opens_neither_html_nor_tnef_and_checks_no_signature() -> None:
    careful = ParsingTerms(careful=True, dns=lambda _: pytest.fail("it looked up a key"))
    raw = signed(PLAIN + b"\r\nhello", rsa.generate_private_key(65537, 2048))

    assert (None, ("careful",)) == (read(html(b"<p>x"), careful).text, read(html(b"<p>x"), careful).flags)
    assert ["winmail.dat"] == [each.name for each in read(NASTY["winmail.dat"], careful).attachments]
    assert ["unknown"] == [each.result for each in read(raw, careful).authentication.dkim]


def test_the_reading_stops_between_two_parts_when_its_time_is_over() -> None:
    seconds = itertools.count()
    raw = multipart(*[part(b"text/plain", b"x")] * 500)

    document = mail_document(raw, ParsingTerms(seconds=100), lambda: next(seconds))

    assert "out_of_time" in document.flags
    assert "a@x.example" == document.from_[0].address
    assert 0 < document.parts < 200


def test_a_mail_is_read_up_to_its_largest_size(monkeypatch) -> None:
    monkeypatch.setattr(mime, "MAX_SIZE", 1000)

    document = read(PLAIN + b"\r\n" + b"x" * 2000)

    assert (("too_large",), 2000 + len(PLAIN) + 2) == (document.flags, document.size)
    assert len(document.text or "") < 1000


def test_depth_and_parts_are_read_up_to_their_bounds() -> None:
    assert ("deep down", 100) == ((read(nested(99)).text), read(nested(99)).parts)
    assert () == read(multipart(*[part(b"text/plain", b"x")] * 999)).flags


@pytest.mark.parametrize("name", ["a bounce", "a bounce of headers", "a bounce whose lines end in CR"])
def test_a_bounce_says_whom_it_could_not_reach_and_about_which_mail(name: str) -> None:
    bounce = read(NASTY[name]).bounce

    assert bounce is not None
    assert ("dsn", "<1@x.example>") == (bounce.kind, bounce.original_message_id)
    assert [("nobody@y.example", "failed", "5.1.1"), ("late@y.example", "delayed", "4.4.1")] == [
        (each.recipient, each.action, each.status) for each in bounce.recipients
    ]
    assert "smtp; 550 5.1.1 no such user here" == bounce.recipients[0].diagnostic
    assert ("a part of type message/delivery-status",) == bounce.rests_on


def test_every_report_of_a_bounce_counts() -> None:
    bounce = read(NASTY["a bounce of two reports"]).bounce

    assert bounce is not None
    assert ["nobody@y.example", "late@y.example", "another@y.example", "late@y.example"] == [
        each.recipient for each in bounce.recipients
    ]


def test_parts_behind_the_end_of_a_boundary_that_is_used_within_itself_are_not_lost() -> None:
    inner = part(b'multipart/alternative; boundary="B"', b"--B\r\n\r\nhello\r\n--B\r\n\r\n\r\n--B--")
    file = part(b"image/gif; name=xx.gif", b"GIF", b"Content-Disposition: attachment")

    document = read(multipart(inner, file, inner, file))
    ended = read(multipart(part(b"text/plain", b"hello"), end=b"--B--\r\n" + file))

    assert (["xx.gif", "xx.gif"], "hello\n\nhello") == ([each.name for each in document.attachments], document.text)
    assert [] == list(ended.attachments)


def test_a_name_that_shows_its_own_address_is_not_odd() -> None:
    assert () == read(PLAIN.replace(b"a@x.example", b'"A@x.example" <a@X.example>') + b"\r\nhello").flags


def test_a_line_that_ends_in_crlf_is_one_line(monkeypatch) -> None:
    monkeypatch.setattr(mime, "MAX_LINES", 50)
    monkeypatch.setattr(mime, "CHUNK", 7)

    flags = {count: read((PLAIN + b"\r\n" + b"a\r\n" * (count - 6)), ParsingTerms()).flags for count in (50, 51)}

    assert {50: (), 51: ("too_many_lines",)} == flags


@pytest.mark.parametrize(
    ("raw", "kind", "original", "feedback"),
    [
        (report(b"message/feedback-report", ARF), "arf", "<1@x.example>", "abuse"),
        (report(b"message/disposition-notification", MDN, b""), "mdn", "<0@x.example>", None),
        (NASTY["a bounce in prose"], "likely", None, None),
        (report(b"message/delivery-status", DSN, b""), "dsn", None, None),
    ],
)
def test_reports_are_told_apart(raw: bytes, kind: str, original: str | None, feedback: str | None) -> None:
    bounce = read(raw).bounce

    assert bounce is not None
    assert (kind, original, feedback) == (bounce.kind, bounce.original_message_id, bounce.feedback)


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ((b"Auto-Submitted: auto-replied",), "auto_reply"),
        ((b"Subject: Out of Office: s",), "auto_reply"),
        ((b"Subject: Automatische Antwort: s",), "auto_reply"),
        ((b"Auto-Submitted: auto-generated",), "auto_generated"),
        ((b"X-Auto-Response-Suppress: All",), "auto_generated"),
        ((b"Return-Path: <>",), "auto_generated"),
        ((b"List-Id: <l.x.example>", b"Precedence: bulk"), "list"),
        ((b"Precedence: bulk",), "bulk"),
        ((b"Auto-Submitted: no",), None),
        ((b"Subject: An office to let",), None),
        ((), None),
    ],
)
def test_what_a_machine_wrote_is_told_with_what_says_so(lines: tuple[bytes, ...], kind: str | None) -> None:
    found = read(headed(*lines)).automatic

    assert kind == (found and found.kind)
    assert found is None or found.rests_on[0].partition(":")[0] == lines[0].decode().partition(":")[0].lower()


@pytest.mark.parametrize(
    ("lines", "result", "score"),
    [
        ((b"X-Spam-Flag: YES", b"X-Spam-Status: Yes, score=15.2 required=5.0"), "spam", 15.2),
        ((b"X-Spam-Status: No, score=-1.9 required=5.0",), "ham", -1.9),
        ((b"X-Forefront-Antispam-Report: CIP:1.2.3.4;SCL:9;",), "spam", None),
        ((b"X-MS-Exchange-Organization-SCL: 1",), "ham", None),
        ((b"X-Spam-Status: maybe",), "unknown", None),
        ((), "unknown", None),
    ],
)
def test_what_filters_say_is_told_with_their_words(lines: tuple[bytes, ...], result: str, score: float | None) -> None:
    spam = read(headed(*lines)).spam

    assert (result, score, len(lines)) == (spam.result, spam.score, len(spam.rests_on))


def test_a_signature_that_verifies_passes_by_the_key_in_dns(key) -> None:
    verdicts = read(signed(PLAIN + b"\r\nhello\r\n", key), ParsingTerms(dns=dns_of(record(key)))).authentication.dkim

    assert (Verdict("pass", "the signature, and the key at s1._domainkey.x.example", "x.example"),) == verdicts


def test_a_body_that_was_changed_fails(key) -> None:
    (verdict,) = read(
        signed(PLAIN + b"\r\nhello\r\n", key) + b"more", ParsingTerms(dns=dns_of(record(key)))
    ).authentication.dkim

    assert ("fail", "the body, which is not what was signed") == (verdict.result, verdict.rests_on)


def test_a_header_that_was_changed_fails(key) -> None:
    forged = signed(PLAIN + b"\r\nhello\r\n", key).replace(b"Subject: s", b"Subject: t")

    assert ["fail"] == [each.result for each in read(forged, ParsingTerms(dns=dns_of(record(key)))).authentication.dkim]


def test_without_a_key_without_dns_and_without_looking_nothing_is_said(key) -> None:
    def away(_name: str) -> bytes:
        raise DnsAway("no answer")

    raw = signed(PLAIN + b"\r\nhello\r\n", key)
    found = [read(raw, ParsingTerms(dns=dns)).authentication.dkim[0] for dns in (dns_of(None), away, None)]

    assert ["permerror", "temperror", "unknown"] == [each.result for each in found]
    assert all(each.rests_on.startswith("nothing: ") for each in found)
    assert ["x.example"] * 3 == [each.domain for each in found]


def test_no_more_signatures_are_checked_than_a_few(key) -> None:
    asked: list[str] = []

    document = read(NASTY["100 signatures"], ParsingTerms(dns=asked.append))

    assert MAX_SIGNATURES == len(document.authentication.dkim)
    assert len(asked) <= MAX_SIGNATURES


@pytest.mark.parametrize("name", ["spaces without end", "a signature of 60 kB"])
def test_what_would_take_the_library_for_ever_is_not_checked_and_says_so(name: str) -> None:
    (verdict,) = read(NASTY[name], ParsingTerms(dns=lambda _: pytest.fail("it was checked"))).authentication.dkim

    assert ("unknown", "nothing: ") == (verdict.result, verdict.rests_on[:9])


@pytest.mark.parametrize("gap", [b" ", b"\t", b" \r\n"])
def test_runs_of_spaces_cost_no_more_than_other_text(key, gap: bytes) -> None:
    run = (gap * 1999)[:1999]
    raw = signed(PLAIN + b"\r\nhello\r\n", key).replace(b"c=relaxed/simple", b"c=relaxed/relaxed") + (run + b"x") * 500

    began = time.thread_time()
    (verdict,) = read(raw, ParsingTerms(dns=dns_of(record(key)))).authentication.dkim

    assert (True, "fail") == (b"c=relaxed/relaxed" in raw, verdict.result)
    assert time.thread_time() - began < 2


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r", b"\n", b"\r\n", b"x"])).map(b"".join))
def test_trailing_spaces_are_those_that_the_library_means(content: bytes) -> None:
    assert re.sub(b"[\t ]+\r\n", b"\r\n", content) == dkim.canonicalization.strip_trailing_whitespace(content)


def test_a_sealed_chain_passes_and_a_broken_one_fails(key) -> None:
    results = b"Authentication-Results: mx.x.example; spf=pass smtp.mailfrom=x.example\r\n"
    raw = results + PLAIN + b"\r\nhello\r\n"
    seal = dkim.arc_sign(raw, b"s1", b"x.example", private(key), b"mx.x.example")
    sealed = b"".join(seal) + raw
    terms = ParsingTerms(dns=lambda name: dns_of(record(key))(name.rstrip(".")))

    assert ("pass", "x.example") == ((arc := read(sealed, terms).authentication.arc).result, arc.domain)
    assert "fail" == read(sealed + b"more", terms).authentication.arc.result
    assert "none" == read(raw, terms).authentication.arc.result


def test_results_are_believed_of_trusted_servers_only_and_of_these_the_topmost() -> None:
    lines = (
        b"Authentication-Results: other.example; spf=pass smtp.mailfrom=evil.example",
        b"Authentication-Results: mx.y.example 1; spf=softfail smtp.mailfrom=a@x.example; dmarc=fail header.from=x.example",
        b"Authentication-Results: mx.y.example; spf=pass smtp.mailfrom=x.example; dmarc=pass header.from=x.example",
    )

    trusted, nobody = read(headed(*lines)).authentication, read(headed(*lines), ParsingTerms()).authentication

    assert ("softfail", "x.example", "Authentication-Results of mx.y.example") == (
        trusted.spf.result,
        trusted.spf.domain,
        trusted.spf.rests_on,
    )
    assert ("fail", 2) == (trusted.dmarc.result, len(trusted.servers))
    assert ("unknown", "unknown", ()) == (nobody.spf.result, nobody.dmarc.result, nobody.servers)


def test_the_parser_that_fails_in_an_unknown_way_leaves_a_document_that_says_so(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError("list index out of range\ud800\0")

    monkeypatch.setattr("pipeline.mail.document.read_fields", broken)
    document = read(PLAIN)

    assert (("unparsed",), len(PLAIN)) == (document.flags, document.size)
    assert "IndexError" in document.notes[0]
    assert orjson.loads(orjson.dumps(view(document)))["notes"] == list(document.notes)


def test_one_stage_that_fails_leaves_what_the_others_found(monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr("pipeline.mail.classification.spam", broken)
    document = read(PLAIN + b"\r\nhello")

    assert (("unparsed",), "hello", "<1@x.example>") == (document.flags, document.text, document.message_id)


def test_a_mail_that_nothing_could_be_made_of_has_its_size_and_digest() -> None:
    assert MailDocument(5, sha256(b"hello").hexdigest(), flags=("careful", "unparsed"), notes=("unparsed: why",)) == unparsed(
        b"hello", "why", "careful"
    )
