"""Malformed and hostile mails of the kinds that real mailboxes receive, each to the exact byte."""

import base64
import binascii
import struct
from email.mime.text import MIMEText

FROM = b"From: a@x.example\r\n"
PLAIN = b"From: a@x.example\r\nTo: b@y.example\r\nSubject: s\r\n"
PLAIN += b"Date: Mon, 1 Jun 2026 10:00:00 +0000\r\nMessage-ID: <1@x.example>\r\n"


def headed(*lines: bytes, body: bytes = b"hello\r\n") -> bytes:
    return FROM + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def part(type: bytes, body: bytes, *lines: bytes) -> bytes:
    return b"--B\r\nContent-Type: " + type + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body + b"\r\n"


def multipart(*parts: bytes, subtype: bytes = b"mixed", end: bytes = b"--B--\r\n", extra: bytes = b"") -> bytes:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/" + subtype + b'; boundary="B"' + extra + b"\r\n\r\n"
    return PLAIN + head + b"".join(parts) + end


def nested(depth: int, kind: bytes = b"multipart/mixed") -> bytes:
    levels = (b'Content-Type: %b; boundary="b%d"\r\n\r\n--b%d\r\n' % (kind, level, level) for level in range(depth))
    return b"".join([PLAIN, *levels, b"Content-Type: text/plain\r\n\r\ndeep down\r\n"])


def nested_mails(depth: int) -> bytes:
    return b"".join([PLAIN, b"Content-Type: message/rfc822\r\n\r\n" * depth, PLAIN, b"\r\ninnermost\r\n"])


def html(source: bytes, charset: bytes = b"utf-8") -> bytes:
    return PLAIN + b"Content-Type: text/html; charset=" + charset + b"\r\n\r\n" + source


def text(body: bytes, charset: bytes) -> bytes:
    return PLAIN + b"Content-Type: text/plain; charset=" + charset + b"\r\n\r\n" + body


def encoded(body: bytes, encoding: bytes, charset: bytes = b"utf-8") -> bytes:
    return PLAIN + b"Content-Type: text/plain; charset=%b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (
        charset,
        encoding,
        body,
    )


def named(disposition: bytes, type: bytes = b"application/octet-stream") -> bytes:
    return multipart(part(type, b"data", b"Content-Disposition: " + disposition))


def tnef_object(level: int, name: int, type: int, data: bytes) -> bytes:
    return struct.pack("<BHHI", level, name, type, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def tnef(*objects: bytes) -> bytes:
    return struct.pack("<IH", 0x223E9F78, 1) + b"".join(objects)


TNEF_FILE = tnef(
    tnef_object(1, 0x9006, 8, struct.pack("<I", 0x10000)),
    tnef_object(1, 0x9007, 6, struct.pack("<II", 1252, 0)),
    tnef_object(2, 0x9002, 6, b"\1\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    tnef_object(2, 0x8010, 1, b"secret plan.txt\0"),
    tnef_object(2, 0x800F, 6, b"the plan"),
    tnef_object(1, 0x8008, 7, b"IPM.Microsoft Mail.Note\0"),
)


def winmail(data: bytes) -> bytes:
    return multipart(
        part(b"text/plain", b"see attachment"),
        part(b"application/ms-tnef; name=winmail.dat", base64.encodebytes(data), b"Content-Transfer-Encoding: base64"),
    )


def uu(data: bytes, name: bytes = b"plan.txt") -> bytes:
    lines = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45))
    return b"begin 644 " + name + b"\n" + lines + b"`\nend\n"


def report(kind: bytes, machine: bytes, original: bytes = PLAIN, type: bytes = b"message/rfc822") -> bytes:
    return multipart(
        part(b"text/plain", b"It could not be delivered."),
        part(kind, machine),
        part(type, original + b"\r\nthe original"),
        subtype=b"report",
        extra=b"; report-type=" + kind.partition(b"/")[2],
    )


DSN = b"""Reporting-MTA: dns; mx.y.example
Arrival-Date: Mon, 1 Jun 2026 10:00:00 +0000

Original-Recipient: rfc822;nobody@y.example
Final-Recipient: rfc822;nobody@y.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such
 user here

Final-Recipient: rfc822;late@y.example
Action: delayed
Status: 4.4.1
"""
ARF = b"Feedback-Type: abuse\r\nUser-Agent: Complainer/1.0\r\nVersion: 1\r\nOriginal-Rcpt-To: <b@y.example>\r\n"
MDN = b"Final-Recipient: rfc822;b@y.example\r\nOriginal-Message-ID: <0@x.example>\r\nDisposition: manual-action; displayed\r\n"

NASTY: dict[str, bytes] = {
    # hardly a mail
    "nothing": b"",
    "one NUL": b"\0",
    "one line end": b"\r\n",
    "only line ends": b"\r\n" * 1000,
    "only CRs": b"\r" * 1000,
    "only spaces": b" " * 1000,
    "a colon": b":",
    "no header": b"\r\njust a body\r\n",
    "no body": PLAIN,
    "no body and no line end": b"From: a@x.example",
    "no line between header and body": PLAIN + b"this is not a header\r\nand no empty line came before it\r\n",
    "header lines without names": b": x\r\n: y\r\n\r\nbody",
    "header begins with a folded line": b" folded\r\nFrom: a@x.example\r\n\r\nbody",
    "random bytes": bytes(range(256)) * 64,
    "high bytes only": b"\xff" * 5000,
    "UTF-16 with its mark": "From: a@x.example\r\n\r\nhello".encode("utf-16"),
    "a UTF-8 mark first": b"\xef\xbb\xbf" + PLAIN + b"\r\nhello",
    "JSON": b'{"from": "a@x.example"}',
    "an mbox line first": b"From a@x.example Mon Jun  1 10:00:00 2026\n" + PLAIN.replace(b"\r\n", b"\n") + b"\nhello\n",
    "a quoted mbox line first": b">From a@x.example Mon Jun  1 10:00:00 2026\r\n" + PLAIN + b"\r\nhello\r\n",
    "an mbox line inside of the header": FROM + b"From b@y.example Mon Jun  1 10:00:00 2026\r\nSubject: s\r\n\r\nhello",
    # line ends
    "LF only": PLAIN.replace(b"\r\n", b"\n") + b"\nhello\n",
    "CR only": PLAIN.replace(b"\r\n", b"\r") + b"\rhello\r",
    "CR CR LF": PLAIN.replace(b"\r\n", b"\r\r\n") + b"\r\r\nhello\r\r\n",
    "mixed line ends": b"From: a@x.example\nTo: b@y.example\r\nSubject: s\rX: y\n\r\nhello\rworld\nfoo\r\n",
    "bare LF in a header": headed(b"Subject: one\nBcc: smuggled@z.example"),
    "bare CR in a header": headed(b"Subject: one\rBcc: smuggled@z.example"),
    "a smuggled end of data": PLAIN + b"\r\nhello\n.\r\nMAIL FROM:<evil@z.example>\r\n",
    "lines that begin with From": PLAIN + b"\r\nFrom here on\r\n>From there\r\n>>From everywhere\r\n",
    "NUL in the header": headed(b"Subject: a\0b"),
    "NUL in the body": PLAIN + b"\r\nhel\0lo\0\r\n",
    "NUL in a name": headed(b"To: N\0body <b\0@y.example>"),
    "controls in the subject": headed(b"Subject: \x1b[31mred\x1b[0m \x07\x08\x7f"),
    "line separators in the subject": headed("Subject: a\u2028b\u2029c\u0085d".encode()),
    "a space before every colon": multipart(part(b"text/plain", b"hello")).replace(b": ", b" \t: ", 7),
    "a line that is none before the content type": b"no header\r\n" + multipart(part(b"text/plain", b"hello")),
    "a first line that is no header": b"Hello all,\r\nNow : how are you?\r\n\r\nBye\r\n",
    "a content type behind a bare CR": headed(b"Subject: s\rContent-Type: text/html", body=b"<b>x</b>"),
    # large
    "a header of 1 MB": headed(b"X-Large: " + b"x" * 1_000_000),
    "a subject of 100 kB": headed(b"Subject: " + b"long " * 20_000),
    "a header block of 1 MB": headed(*(b"X-%d: %b" % (n, b"y" * 100) for n in range(10_000))),
    "100,000 headers without values": headed(*[b"X:"] * 100_000),
    "a folded header of 50,000 lines": headed(b"X-Folded: a" + b"\r\n b" * 50_000),
    "a header that is folded for ever": FROM + b"Subject: a\r\n" + b" \r\n" * 100_000 + b"\r\nhello",
    "20,000 recipients": headed(b"To: " + b",\r\n ".join(b"r%d@y.example" % n for n in range(20_000))),
    "20,000 recipients with names": headed(b"To: " + b", ".join(b'"R, %d" <r%d@y.example>' % (n, n) for n in range(20_000))),
    "5,000 parameters": headed(b"Content-Type: text/plain" + b"".join(b"; p%d=v" % n for n in range(5_000))),
    "5,000 continuations of one": headed(b"Content-Type: a/b" + b"".join(b"; name*%d=x" % n for n in range(5_000))),
    "a line of 2 MB": PLAIN + b"\r\n" + b"x" * 2_000_000,
    "500,000 empty lines": PLAIN + b"\r\n" + b"\n" * 500_000,
    "1,600,000 lines": PLAIN + b"\r\n" + b"a\n" * 1_600_000,
    "800,000 lines that end in CRLF": PLAIN + b"\r\n" + b"a\r\n" * 800_000,
    "1,000 received lines": headed(*[b"Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0000"] * 1_000),
    "10,000 references": headed(b"References: " + b" ".join(b"<%d@x.example>" % n for n in range(10_000))),
    "spaces without end": PLAIN
    + b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; h=from; bh=; b=\r\n\r\n"
    + b" " * 500_000,
    # structure
    "nested 50 deep": nested(50),
    "nested 3,000 deep": nested(3_000),
    "alternatives nested 500 deep": nested(500, b"multipart/alternative"),
    "mails in mails 3,000 deep": nested_mails(3_000),
    "a mail in a mail": PLAIN + b"Content-Type: message/rfc822\r\n\r\n" + PLAIN + b"\r\ninner\r\n",
    "a mail in base64 in a mail": multipart(
        part(b"message/rfc822", base64.encodebytes(PLAIN + b"\r\ninner"), b"Content-Transfer-Encoding: base64")
    ),
    "5,000 parts": multipart(*[part(b"text/plain", b"x")] * 5_000),
    "5,000 empty parts": multipart(*[b"--B\r\n"] * 5_000),
    "no boundary": PLAIN + b"Content-Type: multipart/mixed\r\n\r\n--B\r\n\r\nhello\r\n--B--\r\n",
    "an empty boundary": PLAIN + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nhello\r\n----\r\n',
    "a boundary that is not there": PLAIN + b"Content-Type: multipart/mixed; boundary=C\r\n\r\n--B\r\n\r\nhello\r\n--B--\r\n",
    "a boundary of spaces": PLAIN + b'Content-Type: multipart/mixed; boundary="   "\r\n\r\n--   \r\n\r\nhello\r\n',
    "a boundary like a pattern": PLAIN
    + b'Content-Type: multipart/mixed; boundary="(.*)+$"\r\n\r\n--(.*)+$\r\n\r\nhi\r\n--(.*)+$--\r\n',
    "a boundary of 10 kB": PLAIN
    + b'Content-Type: multipart/mixed; boundary="%b"\r\n\r\n--%b\r\n\r\nhi\r\n' % (b"b" * 10_000, b"b" * 10_000),
    "a folded boundary": PLAIN + b'Content-Type: multipart/mixed; boundary="a\r\n b"\r\n\r\n--a b\r\n\r\nhello\r\n--a b--\r\n',
    "a boundary folded where it has no space": PLAIN
    + b'Content-Type: multipart/mixed;\r\n boundary="a\r\n\tb"\r\n\r\n--ab\r\n\r\nhello\r\n--ab--\r\n',
    "a boundary folded at another space": PLAIN
    + b'Content-Type: multipart/mixed; boundary="a\r\n\tb"\r\n\r\n--a b\r\n\r\nhello\r\n--a b--\r\n',
    "two boundaries": PLAIN
    + b"Content-Type: multipart/mixed; boundary=B; boundary=C\r\n\r\n--C\r\n\r\nc\r\n--B\r\n\r\nb\r\n--B--\r\n",
    "an encoded boundary": PLAIN
    + b"Content-Type: multipart/mixed; boundary*=utf-8''B%20C\r\n\r\n--B C\r\n\r\nhello\r\n--B C--\r\n",
    "the same boundary inside": multipart(
        part(b'multipart/mixed; boundary="B"', b"--B\r\n\r\ninner\r\n--B--"), part(b"text/plain", b"outer")
    ),
    "a boundary that begins like another": multipart(part(b'multipart/mixed; boundary="BB"', b"--BB\r\n\r\ninner\r\n--BB--")),
    "no end": multipart(part(b"text/plain", b"hello"), end=b""),
    "only an end": multipart(),
    "text before and after": multipart(part(b"text/plain", b"hello"), end=b"--B--\r\nafter").replace(
        b"--B\r\n", b"before\r\n--B\r\n", 1
    ),
    "parts of a digest": multipart(b"--B\r\n\r\n" + PLAIN + b"\r\none\r\n", subtype=b"digest"),
    "a multipart in base64": multipart(part(b"text/plain", b"hi")).replace(
        b"MIME-V", b"Content-Transfer-Encoding: base64\r\nMIME-V"
    ),
    "two content types": headed(b"Content-Type: text/plain", b"Content-Type: text/html", body=b"<b>x</b>"),
    "a content type of nothing": headed(b"Content-Type: "),
    "a content type of semicolons": headed(b'Content-Type: ;;;;=;="";'),
    "a content type without a slash": headed(b"Content-Type: text"),
    "a content type of slashes": headed(b"Content-Type: ////; charset=////"),
    "a content type in 8 bits": headed("Content-Type: täxt/plain; chärset=ütf-8".encode("latin-1")),
    "a partial mail": headed(b'Content-Type: message/partial; id="x"; number=1; total=99999999999999999999'),
    "an external body": headed(b'Content-Type: message/external-body; access-type=local-file; name="/etc/passwd"'),
    "a quote that is never closed": headed(b'Content-Type: text/plain; charset="utf-8'),
    # encoded words and parameters
    "8-bit header": headed("Subject: Grüße".encode("latin-1")),
    "UTF-8 header": headed("Subject: Grüße 🎉".encode()),
    "8-bit address": headed("To: Jörg <jörg@bücher.example>".encode()),
    "a newline in an encoded word": headed(b"Subject: =?utf-8?Q?a=0D=0ABcc:_x@z.example?="),
    "a newline in an encoded name": headed(b"To: =?utf-8?B?YQpCY2M6IHhAei5leGFtcGxl?= <b@y.example>"),
    "an encoded word in an unknown charset": headed(b"Subject: =?x-klingon?Q?a=E4b?="),
    "an encoded word in rot13": headed(b"Subject: =?rot13?Q?uryyb?="),
    "an encoded word in zlib": headed(b"Subject: =?zlib_codec?B?eJwDAAAAAAE=?="),
    "an encoded word in idna": headed(b"Subject: =?idna?Q?xn--" + b"a" * 5000 + b"?="),
    "an encoded word in punycode": headed(b"Subject: =?punycode?Q?" + b"a-" * 5000 + b"?="),
    "an encoded word in unicode_escape": headed(b"Subject: =?unicode_escape?Q?=5Cud800=5C?="),
    "an encoded word in UTF-16": headed(b"Subject: =?utf-16?B?//5oAGk=?="),
    "an encoded word in UTF-7": headed(b"Subject: =?utf-7?Q?+2AA-+AAA-?="),
    "a charset with a NUL": headed(b"Subject: =?ut\0f-8?Q?a?="),
    "a charset of 10 kB": headed(b"Subject: =?" + b"x" * 10_000 + b"?Q?a?="),
    "an encoded word with a language": headed(b"Subject: =?iso-8859-1*de?Q?Gr=FC=DFe?="),
    "a character cut over two words": headed(b"Subject: =?utf-8?B?w7w=?= =?utf-8?B?4oI=?=\r\n =?utf-8?B?rA==?="),
    "an encoded word in quotes": headed(b'To: "=?utf-8?Q?J=C3=B6rg?=" <b@y.example>'),
    "an encoded word without its end": headed(b"Subject: =?utf-8?B?aGVsbG8"),
    "10,000 encoded words without an end": headed(b"Subject: " + b"=?utf-8?Q?x " * 10_000),
    "5,000 encoded words": headed(b"Subject: " + b" ".join([b"=?utf-8?Q?=C3=BC?="] * 5_000)),
    "bad base64 in an encoded word": headed(b"Subject: =?utf-8?B?a?= =?utf-8?B?!!!!?= =?utf-8?B?YQ=?="),
    "bad quoted-printable in an encoded word": headed(b"Subject: =?utf-8?Q?=GG=?="),
    "an address in an encoded word": headed(b"From: =?utf-8?Q?boss=40x.example_=3Cboss=40x.example=3E=2C?= <evil@z.example>"),
    "an address before an address": b"From: ceo@bank.example <evil@z.example>\r\n\r\nhello\r\n",
    "an address in quotes before an address": b'From: "ceo@bank.example" <evil@z.example>\r\n\r\nhello\r\n',
    "two addresses in angle brackets": b"From: <ceo@bank.example> <evil@z.example>\r\n\r\nhello\r\n",
    "raw bytes in an encoded word": headed(
        "Subject: =?iso-8859-1?Q?Gr\u00fc\u00dfe=21?= =?iso-8859-5?q?\u00bf?=".encode("latin-1")
    ),
    "raw UTF-8 in an encoded word": headed("Subject: =?utf-8?Q?Gr\u00fc\u00dfe?=".encode()),
    "UTF-8 in an encoded word of ASCII": headed(b"Subject: =?us-ascii?Q?Gr=C3=BC=C3=9Fe?="),
    "a UTF-8 header with what was lost before": headed("Subject: \ufffd\u00bd\ufffd".encode()),
    "a UTF-8 header that is cut": headed("Subject: Ein l\u00e4ngerer Gru\u00df an alle f\u00fcr \u00fc".encode()[:-1]),
    "RFC 2231 before what it replaces": named(b"attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf; filename=Gruesse.pdf"),
    "RFC 2231 after what it replaces": named(b"attachment; filename=Gruesse.pdf; filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf"),
    "a text with a name": multipart(part(b"text/plain; name=body.txt", b"hello")),
    "RFC 2231 in pieces": named(b"attachment; filename*0*=utf-8''Gr%C3%BC; filename*1*=%C3%9Fe; filename*2=.pdf"),
    "RFC 2231 out of order": named(b"attachment; filename*1=b; filename*0=a; filename*10=k; filename*2=c"),
    "RFC 2231 with gaps": named(b"attachment; filename*0=a; filename*7=h"),
    "RFC 2231 in an unknown charset": named(b"attachment; filename*=klingon'tlh'%E4%FF"),
    "RFC 2231 with broken percents": named(b"attachment; filename*=utf-8''%E4%G1%"),
    "RFC 2231 without quotes": named(b"attachment; filename*=utf-8%41"),
    "RFC 2231 with a number of 5,000 digits": named(b"attachment; filename*" + b"9" * 5_000 + b"*=utf-8''x"),
    "RFC 2231 twice over": named(b"attachment; filename*0*=utf-8''=?utf-8?Q?a?=; filename==?utf-8?B?YQ==?="),
    "a name in 8 bits": named("attachment; filename=Grüße.pdf".encode()),
    "a name in Latin-1": named("attachment; filename=Grüße.pdf".encode("latin-1")),
    "a name that is a path": named(b'attachment; filename="../../../../etc/passwd"'),
    "a name with a NUL": named(b'attachment; filename="a.txt\0.exe"'),
    "a name of 10 kB": named(b'attachment; filename="' + b"n" * 7_000 + b'.txt"'),
    "a name of controls": named(b'attachment; filename="\x1b[2J\x01\x02"'),
    "a name written from right to left": named('attachment; filename="a\u202egpj.exe"'.encode()),
    "a disposition of nothing": named(b""),
    "a disposition of its own": named(b'form-data; name="x"; filename="y"'),
    # charsets of texts
    "Latin-1 said to be ASCII": text("Grüße".encode("latin-1"), b"us-ascii"),
    "UTF-8 said to be ASCII": text("Gr\u00fc\u00dfe".encode(), b"us-ascii"),
    "ASCII by its other name": text("Gr\u00fc\u00dfe".encode(), b"ANSI_X3.4-1968"),
    "windows-874": text("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u20ac".encode("cp874"), b"windows-874"),
    "windows-31j": text("\u2460\u3053\u3093\u306b\u3061\u306f".encode("cp932"), b"Windows-31J"),
    "Latin-1 as l1": text("\u20ac \u201cq\u201d".encode("cp1252"), b"l1"),
    "Latin-1 as csISOLatin1": text("\u20ac \u201cq\u201d".encode("cp1252"), b"csISOLatin1"),
    "Latin-1 as latin-1": text("\u20ac \u201cq\u201d".encode("cp1252"), b"latin-1"),
    "x-mac-cyrillic": text("\u041f\u0440\u0438\u0432\u0435\u0442".encode("mac-cyrillic"), b"x-mac-cyrillic"),
    "HZ": text("\u4f60\u597d".encode("hz"), b"hz-gb-2312"),
    "Latin-1 said to be UTF-8": text("Grüße".encode("latin-1"), b"utf-8"),
    "UTF-8 said to be Latin-1": text("Grüße".encode(), b"iso-8859-1"),
    "a charset that there is not": text("Grüße".encode(), b"x-unknown-9"),
    "a charset that nobody said": PLAIN + b"\r\n" + "Привет, как дела? Всё хорошо.".encode("koi8-r"),
    "ks_c_5601-1987": text("안녕하세요".encode("cp949"), b"ks_c_5601-1987"),
    "iso-8859-8-i": text("שלום".encode("iso-8859-8"), b"iso-8859-8-i"),
    "unicode-1-1-utf-7": text(b"Hi Mom -+Jjo--!", b"unicode-1-1-utf-7"),
    "gb2312 beyond gb2312": text("镕".encode("gb18030"), b"gb2312"),
    "half a character at the end": text("日本".encode("iso-2022-jp")[:-4], b"iso-2022-jp"),
    "UTF-16 of an odd length": text(b"\xff\xfeh\0i", b"utf-16"),
    "lone surrogates": text("a\ud800b".encode("utf-8", "surrogatepass"), b"utf-8"),
    "a charset that is a codec": text(b"aGVsbG8=", b"base64"),
    "a charset with a quote": text(b"hello", b'"utf-8'),
    "a charset in RFC 2231 in a charset with a NUL": PLAIN
    + b"Content-Type: text/plain; charset*=us-\0ascii'en'utf-8\r\n\r\nhello",
    "8 bits in a charset with a NUL": PLAIN + b"Content-Type: text/plain; charset=us-\0ascii\r\n\r\nhell\xf6",
    "a charset in RFC 2231": PLAIN + b"Content-Type: text/plain; charset*=us-ascii'en'utf-8\r\n\r\nhello",
    # transfer encodings
    "base64 cut off": encoded(base64.b64encode(b"hello world")[:-3], b"base64"),
    "base64 of one character": encoded(b"A", b"base64"),
    "base64 with dirt": encoded(b"aGVs!!bG8@@=\r\n--\r\n", b"base64"),
    "base64 joined": encoded(base64.b64encode(b"hello") + base64.b64encode(b"world"), b"base64"),
    "base64 of equal signs": encoded(b"=" * 100_000, b"base64"),
    "base64 that is none": encoded("ärger".encode(), b"base64"),
    "quoted-printable whose lines end in CR": encoded(b"one =\rline=20=\rand another\rtwo", b"quoted-printable"),
    "quoted-printable cut off": encoded(b"a=C3=", b"quoted-printable"),
    "quoted-printable that is none": encoded(b"=ZZ=1=\r\n=\r\n==", b"quoted-printable"),
    "quoted-printable in 8 bits": encoded("Grüße".encode(), b"quoted-printable"),
    "an unknown encoding": encoded(b"hello", b"x-rot13"),
    "two encodings": encoded(b"aGVsbG8=", b"base64\r\nContent-Transfer-Encoding: quoted-printable"),
    "an encoding with a comment": encoded(b"aGVsbG8=", b"base64 (really)"),
    "an encoding of 8 bits": encoded(b"hello", b"b\xe4se64"),
    "uuencoded as a part": encoded(uu(b"hello"), b"x-uuencode"),
    "uuencoded in the text": PLAIN + b"\r\nSee below.\r\n\r\n" + uu(b"the plan" * 40) + b"\r\nBye\r\n",
    "uuencoded twice": PLAIN + b"\r\n" + uu(b"one", b"1.txt") + uu(b"two", b"2.txt"),
    "uuencoded without an end": PLAIN + b"\r\n" + uu(b"the plan")[:-5],
    "uuencoded dirt": PLAIN + b"\r\nbegin 644 x\nMzzz\xff\xff\nend\n",
    "begin, in a sentence": PLAIN + b"\r\nbegin 644 times\nand end it\n",
    "begin, 20,000 times": PLAIN + b"\r\n" + b"begin 644 x\n" * 20_000,
    # TNEF
    "winmail.dat": winmail(TNEF_FILE),
    "winmail.dat alone": PLAIN
    + b"Content-Type: application/ms-tnef\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(TNEF_FILE),
    "winmail.dat cut off": winmail(TNEF_FILE[:-20]),
    "winmail.dat of another kind": winmail(b"PK\3\4" + TNEF_FILE),
    "winmail.dat of nothing": winmail(b""),
    "winmail.dat of 100,000 objects": winmail(tnef(*[tnef_object(1, 0x8008, 7, b"")] * 100_000)),
    "winmail.dat with a length beyond its end": winmail(tnef(b"\1\6\x90\x08\0\xff\xff\xff\x7f" + b"x" * 20)),
    "winmail.dat with four billion recipients": winmail(tnef(tnef_object(1, 0x9004, 6, b"\xff\xff\xff\xff" + b"\0" * 40))),
    "winmail.dat with four billion properties": winmail(tnef(tnef_object(1, 0x9003, 6, b"\xff\xff\xff\xff"))),
    "winmail.dat with four billion values": winmail(tnef(tnef_object(1, 0x9003, 6, b"\1\0\0\0\2\x10\1\0\xff\xff\xff\xff"))),
    "winmail.dat with an attachment before its title": winmail(tnef(tnef_object(2, 0x800F, 6, b"data"))),
    "winmail.dat with a code page that there is not": winmail(
        tnef(tnef_object(1, 0x9007, 6, b"\xff\xff\0\0\0\0\0\0"), tnef_object(1, 0x8004, 1, b"x\0\0\0"))
    ),
    # HTML
    "HTML": html(b"<p>Hello <b>World</b><script>alert(1)</script><style>p{}</style><p style='display:none'>hidden"),
    "HTML nested 50,000 deep": html(b"<div>x" * 50_000),
    "HTML of 10,000 tables": html(b"<table><tr><td>x" * 10_000),
    "HTML with 20,000 attributes": html(b"<p " + b" ".join(b"a%d=1" % n for n in range(20_000)) + b">x"),
    "HTML with margins": html(b"<p style='margin-top:99999999999em;padding-left:1e9em'>x</p>" * 100),
    "HTML with numbers": html(b"<ol><li value='" + b"9" * 5_000 + b"'>x&#99999999999;&#xD800;&#0;"),
    "HTML of nothing": html(b""),
    "HTML of a comment": html(b"<!-- x"),
    "HTML in UTF-16": html("<p>hello</p>".encode("utf-16"), b"utf-16"),
    "HTML that says another charset": html('<meta charset="utf-8"><p>Grüße'.encode("latin-1"), b"iso-8859-1"),
    "HTML with an XML declaration": html(b'<?xml version="1.0" encoding="utf-16"?><html><p>hello'),
    "HTML with entities in entities": html(b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><p>&b;&b;'),
    "HTML with a remote picture": html(b'<img src="http://192.0.2.1/pixel.gif" alt="x">hello'),
    "HTML and a plain footer": multipart(part(b"text/html", b"<p>the message"), part(b"text/plain", b"the list's footer")),
    "an empty plain part beside HTML": multipart(
        part(b"text/plain", b"  "), part(b"text/html", b"<p>the message"), subtype=b"alternative"
    ),
    # ids, dates, addresses
    "no Message-ID": FROM + b"Subject: s\r\n\r\nhello\r\n",
    "an empty Message-ID": headed(b"Message-ID: "),
    "a Message-ID of brackets": headed(b"Message-ID: <>"),
    "a Message-ID without brackets": headed(b"Message-ID: 1@x.example"),
    "a Message-ID of Outlook's": headed(b"Message-ID: <[1.2.3.4]@[10.0.0.1]>"),
    "a Message-ID of 50 kB": headed(b"Message-ID: <" + b"i" * 50_000 + b"@x.example>"),
    "a Message-ID that is folded": headed(b"Message-ID:\r\n <1@\r\n x.example>"),
    "a Message-ID in 8 bits": headed(b"Message-ID: <\xff\xfe@x.example>"),
    "two Message-IDs": headed(b"Message-ID: <1@x.example>", b"Message-ID: <2@x.example>"),
    "a forged Message-ID": PLAIN + b"\r\nThis is not the mail that this id was given to.\r\n",
    "a mail that refers to itself": headed(
        b"Message-ID: <1@x.example>", b"In-Reply-To: <1@x.example>", b"References: <1@x.example> <2@x.example> <1@x.example>"
    ),
    "references without brackets": headed(b"References: one two three", b"In-Reply-To: Your message of Monday"),
    "two senders": headed(b"From: evil@z.example"),
    "no sender": b"Subject: s\r\n\r\nhello",
    "a sender of nothing": b"From: \r\n\r\nhello",
    "a group": headed(b"To: A Group:b@y.example,c@y.example;, Undisclosed recipients:;"),
    "a group in a group": headed(b"To: A: B: b@y.example;; c@y.example"),
    "a group without an end": headed(b"To: A Group:b@y.example, c@y.example"),
    "comments in comments": headed(b"To: " + b"(" * 5_000 + b"x" + b")" * 5_000 + b" b@y.example"),
    "quotes that are never closed": headed(b'To: "never closed <b@y.example>, c@y.example'),
    "brackets in brackets": headed(b"To: <<<b@y.example>>>, <c@y.example"),
    "a route": headed(b"To: <@a.example,@b.example:b@y.example>"),
    "an address of commas": headed(b"To: ,,,,, ,;,;,"),
    "two addresses in one": headed(b"From: a@x.example <evil@z.example>", b"To: a@b@c@d"),
    "an address with a quoted local part": headed(b'To: "a@b c"@y.example'),
    "a date in the year 0": headed(b"Date: Mon, 1 Jan 0000 00:00:00 +0000"),
    "a date in the year 99999": headed(b"Date: Mon, 1 Jan 99999 00:00:00 +0000"),
    "a date on the 31st of February": headed(b"Date: Tue, 31 Feb 2026 25:61:61 +0000"),
    "a date with a zone beyond a day": headed(b"Date: Mon, 1 Jun 2026 10:00:00 +9999"),
    "a date with a number of 5,000 digits": headed(b"Date: " + b"9" * 5_000),
    "a date in words": headed(b"Date: yesterday"),
    "a date of nothing": headed(b"Date:"),
    "a date before zones": headed(b"Date: 1 Jan 0001 00:00:00 +1400"),
    # reports, verdicts
    "a bounce": report(b"message/delivery-status", DSN.replace(b"\n", b"\r\n")),
    "a bounce of two reports": multipart(
        part(b"message/delivery-status", DSN), part(b"message/delivery-status", DSN.replace(b"nobody@", b"another@"))
    ),
    "a bounce whose lines end in CR": report(b"message/delivery-status", DSN).replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    "a bounce of nothing": report(b"message/delivery-status", b""),
    "a bounce of 10,000 recipients": report(
        b"message/delivery-status", b"\n\n".join(b"Final-Recipient: rfc822; r%d@y.example" % n for n in range(10_000))
    ),
    "a bounce of headers": report(b"message/delivery-status", DSN, type=b"text/rfc822-headers"),
    "a bounce in prose": b"From: MAILER-DAEMON@y.example\r\nSubject: Undelivered Mail Returned to Sender\r\n\r\nSorry.\r\n",
    "a complaint": report(b"message/feedback-report", ARF),
    "a read receipt": report(b"message/disposition-notification", MDN),
    "an auto-reply": headed(b"Auto-Submitted: auto-replied", b"Subject: Out of office"),
    "an auto-reply of Exchange's": headed(b"X-Auto-Response-Suppress: All", b"Subject: Automatic reply: s"),
    "a mail of a list": headed(b"List-Id: <list.x.example>", b"Precedence: bulk"),
    "spam": headed(b"X-Spam-Flag: YES", b"X-Spam-Status: Yes, score=15.2 required=5.0 tests=A,B"),
    "spam with a score that is none": headed(b"X-Spam-Score: " + b"9" * 400, b"X-Spam-Status: maybe"),
    "results of a server": headed(
        b"Authentication-Results: mx.y.example; spf=pass smtp.mailfrom=x.example; dmarc=fail header.from=x.example"
    ),
    "results that are none": headed(b"Authentication-Results: mx.y.example; ====;;;(((((", b"Authentication-Results: "),
    "results with comments in comments": headed(b"Authentication-Results: mx.y.example; spf=pass " + b"(" * 5_000),
    "a signature of nothing": headed(b"DKIM-Signature: "),
    "a signature of 60 kB": headed(b"DKIM-Signature: v=1; a=rsa-sha256; b=" + b" " * 60_000 + b"="),
    "100 signatures": headed(*[b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; h=from; bh=AAAA; b=AAAA"] * 100),
    "a chain of 100 seals": headed(
        *(b"ARC-Seal: i=%d; a=rsa-sha256; cv=none; d=x.example; s=s; b=AAAA" % n for n in range(100))
    ),
    "a seal of number 0": headed(b"ARC-Seal: i=0; a=rsa-sha256; cv=pass; d=x.example; s=s; b=AAAA"),
    "an ordinary mail": bytes(MIMEText("Alles gut, Grüße", "plain", "utf-8")),
}
