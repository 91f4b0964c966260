"""Bytes to text: charsets, encoded words (RFC 2047), and text that is safe for JSON, Postgres and terminals."""

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

SAMPLE: Final = 16 * 1024  # bytes from which a charset is guessed
MAX_LINE: Final = 2000  # characters of a subject or a name
MAX_PIECES: Final = 1000  # concatenated pieces of base64, each with its own padding

#: Python's codecs for WHATWG's names, where Python's name differs or Python has a superset of the charset.
_CODECS: Final = {
    "euc-kr": "cp949",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "windows-874": "cp874",
    "iso-8859-8-i": "iso-8859-8",
    "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic",
}
#: Labels that occur in mails and that WHATWG does not list, rejects, or maps to another charset.
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
_UNNAMED: Final = frozenset({"", "unknown-8bit", "x-unknown", "unknown", "default", "x-user-defined", "binary", "8bit", "7bit"})
#: Python encodings that are not charsets, or whose decoder takes quadratic time.
_NOT_CHARSETS: Final = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})

#: An encoded word in Q encoding.
_Q_WORD: Final = re.compile(rb"=\?[^?\s]{1,60}\?[qQ]\?[^?\r\n]*+\?=")
_RAW: Final = re.compile(rb"[\x80-\xff]")
_WORD: Final = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?\r\n]*)\?=")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
#: Control characters, and those that reverse the writing direction: `a\u202egpj.exe` would be displayed as `aexe.jpg`.
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_BASE64_AND_SPACE: Final = (string.ascii_letters + string.digits + "+/=\r\n\t ").encode()
_NO_BASE64: Final = bytes(set(range(256)) - set(_BASE64_AND_SPACE)) + b"\r\n\t "


def storable(text: str) -> str:
    """The text with NUL and lone surrogates, which JSON or Postgres reject, replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def one_line(text: str, most: int = MAX_LINE) -> str:
    """The text on one line of at most `most` characters; each run of control characters and spaces becomes one space."""
    return storable(_CONTROL.sub(" ", text[: 4 * most])).strip()[:most]


def header_text(value: bytes, findings: Findings) -> str:
    """A header's value as text: UTF-8 (RFC 6532), or else cp1252.

    Encoded words are not decoded. Raw bytes inside one are Q-encoded first, as they are in the charset that the word names.
    """
    if value.isascii():
        return value.decode("ascii")
    findings.flag("raw_8bit_header")
    value = _Q_WORD.sub(lambda word: _RAW.sub(lambda byte: b"=%02X" % byte[0][0], word[0]), value)
    return _utf8(value) or value.decode("cp1252", "replace")


def phrase(value: bytes | str, findings: Findings, most: int = MAX_LINE) -> str:
    """A header's value with its encoded words decoded, on one line."""
    text = header_text(value, findings) if isinstance(value, bytes) else value
    return one_line(decode_words(text, findings) if "=?" in text else text, most)


def decode_words(text: str, findings: Findings) -> str:
    """The text with its encoded words decoded. Adjacent words of one charset are joined first: many split a character."""
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
    """`data` as text. Invalid bytes become U+FFFD; an unknown or missing charset is guessed."""
    name = charset.strip(" \"'").lower()
    if name in _UNNAMED:
        return _guessed(data, findings)
    codec = _codec_for_label(name)
    if codec is None:
        findings.flag("unknown_charset", name)
        return _guessed(data, findings)
    if codec.name == "ascii":
        return _labelled_ascii(data, name, findings)
    try:
        return codec.decode(data, "strict")[0]
    except UnicodeError:
        findings.flag("bad_charset", name)
        return data.decode(codec.name, "replace")


def _codec_for_label(label: str) -> codecs.CodecInfo | None:
    """The codec for a label: by WHATWG, or by Python where WHATWG does not know it. ASCII stays ASCII.

    Every name of Latin-1 means cp1252.
    """
    known = _codec(label)
    if known is not None and known.name == "ascii":
        return known
    if known is not None and known.name == "iso8859-1":
        return _codec("cp1252")
    whatwg: str = LABELS.get(label, label)
    return _codec(_ALIASES.get(label) or _CODECS.get(whatwg, whatwg)) or known


def _labelled_ascii(data: bytes, name: str, findings: Findings) -> str:
    """Text labelled as ASCII: UTF-8 if it can be, or else cp1252."""
    if data.isascii():
        return data.decode("ascii")
    findings.flag("bad_charset", name)
    return _utf8(data) or data.decode("cp1252", "replace")


def _utf8(data: bytes) -> str:
    """The text if it is UTF-8, possibly cut or slightly damaged; "" if not. Other charsets do not resemble valid UTF-8."""
    with suppress(UnicodeDecodeError):
        return data.decode()
    text = data.decode("utf-8", "replace")
    return text if sum(each > "\x7f" for each in text) > 3 * text.count("\ufffd") else ""


def _codec(name: str) -> codecs.CodecInfo | None:
    """The codec of that name; None if it is unknown or not a charset."""
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name)
    except (LookupError, ValueError):
        return None
    return None if codec.name.replace("-", "_") in _NOT_CHARSETS else codec


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
    """The bytes that can be decoded from base64, even if it was cut, concatenated, or mixed with other characters."""
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
