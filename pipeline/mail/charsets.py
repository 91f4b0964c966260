"""Bytes to text: charsets, encoded words (RFC 2047), and text that any store and any terminal can take."""

import binascii
import codecs
import quopri
import re
import string
from contextlib import suppress
from typing import Final

from charset_normalizer import from_bytes
from webencodings.labels import LABELS

from pipeline.mail.flags import Findings

SAMPLE: Final = 16 * 1024  # bytes by which a charset is guessed
MAX_LINE: Final = 2000  # characters of a subject or a name
MAX_PIECES: Final = 1000  # of base64 that were joined

#: Python's codecs for what WHATWG calls otherwise, or gives to a larger charset than Python does.
_CODECS: Final = {
    "euc-kr": "cp949",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "windows-874": "cp874",
    "iso-8859-8-i": "iso-8859-8",
    "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
}
#: What mails say beside WHATWG's labels, or say and browsers refuse or read otherwise.
_ALIASES: Final = {
    "ks_c_5601": "cp949",
    "big5-eten": "big5",
    "big5-hkscs": "big5hkscs",
    "hz-gb-2312": "hz",
    "utf-16": "utf-16",
    "unicode-1-1-utf-7": "utf-7",
    "x-mac-roman": "mac-roman",
    "utf8mb4": "utf-8",
    "utf": "utf-8",
    "cp-850": "cp850",
}
_UNSAID: Final = frozenset({"", "unknown-8bit", "x-unknown", "unknown", "default", "x-user-defined", "binary", "8bit", "7bit"})
#: Encodings of Python's that are no charsets, or that take the square of the time.
_NONE: Final = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})

#: An encoded word of the kind in which bytes stand for themselves.
_Q_WORD: Final = re.compile(rb"=\?[^?\s]{1,60}\?[qQ]\?[^?\r\n]*+\?=")
_RAW: Final = re.compile(rb"[\x80-\xff]")
_WORD: Final = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?\r\n]*)\?=")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
#: Controls, and what turns the direction of writing: `a\u202egpj.exe` would be shown as `aexe.jpg`.
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_BASE64_AND_SPACE: Final = (string.ascii_letters + string.digits + "+/=\r\n\t ").encode()
_NO_BASE64: Final = bytes(set(range(256)) - set(_BASE64_AND_SPACE)) + b"\r\n\t "


def storable(text: str) -> str:
    """The text without what neither JSON nor Postgres takes: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def one_line(text: str, most: int = MAX_LINE) -> str:
    """The text on one line of at most `most` characters, controls and runs of spaces as one space."""
    return storable(_CONTROL.sub(" ", text[: 4 * most])).strip()[:most]


def header_text(value: bytes, findings: Findings) -> str:
    """A header's value as text: UTF-8 (RFC 6532), or else what people mostly mean.

    Encoded words are as they are, but that raw bytes in them are encoded too: those are of the charset that the word says.
    """
    if value.isascii():
        return value.decode("ascii")
    findings.flag("raw_8bit_header")
    value = _Q_WORD.sub(lambda word: _RAW.sub(lambda byte: b"=%02X" % byte[0][0], word[0]), value)
    return _utf8(value) or value.decode("cp1252", "replace")


def phrase(value: bytes | str, findings: Findings, most: int = MAX_LINE) -> str:
    """A header's value as people read it, on one line."""
    text = header_text(value, findings) if isinstance(value, bytes) else value
    return one_line(decode_words(text, findings) if "=?" in text else text, most)


def decode_words(text: str, findings: Findings) -> str:
    """The text with its encoded words decoded. Neighbours of one charset are decoded together: many are cut in a character."""
    out: list[str] = []
    charset, held, end = "", bytearray(), 0
    for word in _WORD.finditer(text):
        between = text[end : word.start()]
        said = word[1].partition("*")[0].lower()
        data = _word_bytes(word[2], word[3], findings)
        if held and (said != charset or between.strip()):
            out.append(_word_text(bytes(held), charset, findings))
            held.clear()
        if between.strip() or not end:
            out.append(between)
        charset, end = said, word.end()
        held += data
    if held:
        out.append(_word_text(bytes(held), charset, findings))
    return "".join([*out, text[end:]])


def decoded(data: bytes, charset: str, findings: Findings) -> str:
    """`data` as text; nothing is lost to one bad byte, and a charset that is unknown, or not said, is guessed."""
    name = charset.strip(" \"'").lower()
    if name in _UNSAID:
        return _guessed(data, findings)
    codec = _charset(name)
    if codec is None:
        findings.flag("unknown_charset", name)
        return _guessed(data, findings)
    if codec.name == "ascii":
        return _not_ascii(data, name, findings)
    try:
        return codec.decode(data, "strict")[0]
    except UnicodeError:
        findings.flag("bad_charset", name)
        return data.decode(codec.name, "replace")


def _charset(label: str) -> codecs.CodecInfo | None:
    """What decodes text of that label: WHATWG's reading of it, Python's of what WHATWG does not know, ASCII as it is.

    Latin-1 is cp1252, whatever it is called.
    """
    known = _codec(label)
    if known is not None and known.name == "ascii":
        return known
    if known is not None and known.name == "iso8859-1":
        return _codec("cp1252")
    whatwg: str = LABELS.get(label, label)
    return _codec(_ALIASES.get(label) or _CODECS.get(whatwg, whatwg)) or known


def _not_ascii(data: bytes, name: str, findings: Findings) -> str:
    """What is said to be ASCII: UTF-8 where it can be that, and else what people mostly mean."""
    if data.isascii():
        return data.decode("ascii")
    findings.flag("bad_charset", name)
    return _utf8(data) or data.decode("cp1252", "replace")


def _utf8(data: bytes) -> str:
    """The text if it is UTF-8, or was before it was cut or damaged here and there; "" if not: nothing else looks like it."""
    with suppress(UnicodeDecodeError):
        return data.decode()
    text = data.decode("utf-8", "replace")
    return text if sum(each > "\x7f" for each in text) > 3 * text.count("\ufffd") else ""


def _codec(name: str) -> codecs.CodecInfo | None:
    """The charset of that name; None for one that is unknown, and for what Python has beside charsets."""
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name)
    except (LookupError, ValueError):
        return None
    return None if codec.name.replace("-", "_") in _NONE else codec


def _guessed(data: bytes, findings: Findings) -> str:
    if data.isascii():
        return data.decode("ascii")
    findings.flag("guessed_charset")
    if text := _utf8(data):
        return text
    best = from_bytes(data[:SAMPLE]).best()
    return data.decode(best.encoding if best else "cp1252", "replace")


def _word_text(data: bytes, charset: str, findings: Findings) -> str:
    text = decoded(data, charset, findings)
    if "\n" in text or "\r" in text:
        findings.flag("line_end_in_word")
    return text


def _word_bytes(encoding: str, text: str, findings: Findings) -> bytes:
    raw = text.encode("utf-8", "replace")
    return quopri.decodestring(raw, header=True) if encoding in "qQ" else unbase64(raw, findings)


def unbase64(raw: bytes, findings: Findings) -> bytes:
    """What can be decoded of base64, however it was cut, joined, or mixed with other characters."""
    clean = raw.translate(None, _NO_BASE64)
    if len(clean) % 4 or raw.translate(None, _BASE64_AND_SPACE):
        findings.flag("bad_encoding", "base64")
    body = clean.rstrip(b"=")
    pieces = [body]
    if b"=" in body:
        findings.flag("bad_encoding", "base64 goes on after its end")
        pieces = [piece for piece in body.split(b"=", MAX_PIECES) if piece]
    return b"".join(map(_piece, pieces))


def _piece(piece: bytes) -> bytes:
    plain = piece.replace(b"=", b"")
    whole = plain[:-1] if len(plain) % 4 == 1 else plain
    return binascii.a2b_base64(whole + b"=" * (-len(whole) % 4))
