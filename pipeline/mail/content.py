"""The text and the attachments of a mail."""

import quopri
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal

from pipeline.mail.charsets import decoded, one_line, phrase, storable, unbase64
from pipeline.mail.flags import Findings
from pipeline.mail.html import text_of_html
from pipeline.mail.mime import Part
from pipeline.mail.tnef import TNEF_TYPES, open_tnef, uuencoded
from schemas.mail_document import Attachment

MAX_TEXT: Final = 1024 * 1024  # characters
MAX_NAME: Final = 255  # characters
MAX_ATTACHMENTS: Final = 2000

_PLAIN: Final = frozenset({"", "7bit", "8bit", "binary", "7-bit", "8-bit"})
#: A soft line break that ends in CR alone: quopri would drop everything up to the next LF.
_SOFT_CR: Final = re.compile(rb"=[ \t]*+\r(?!\n)")
_UUENCODE: Final = frozenset({"x-uuencode", "uuencode", "uue", "x-uue"})

Form = Literal["plain", "html", "tnef"]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the mail's text, and the form it was in."""

    form: Form
    text: str


@dataclass(slots=True)
class MailContent:
    """Text and attachments, in the order in which they are found."""

    blocks: list[Block] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)

    @property
    def text(self) -> str | None:
        """All blocks, joined by empty lines; None if there is no text."""
        text = "\n\n".join(block.text for block in self.blocks if block.text.strip())
        return text or None

    @property
    def text_from(self) -> Literal["plain", "html", "mixed", "tnef"] | None:
        """The form of the text; "mixed" for several, None without text."""
        forms = {block.form for block in self.blocks if block.text.strip()}
        return "mixed" if len(forms) > 1 else next(iter(forms), None)


def read_content(root: Part, findings: Findings, *, careful: bool) -> MailContent:
    """The text and the attachments of a mail. If `careful`, neither HTML nor TNEF is opened."""
    content = MailContent()
    with findings.flagging_errors("unparsed", "content"):
        content.blocks.extend(_blocks_of(root, content, findings, careful=careful))
    length = sum(len(block.text) for block in content.blocks)
    if length > MAX_TEXT:
        findings.flag("text_cut")
        content.blocks = _cut(content.blocks)
    return content


def decoded_bytes(part: Part, findings: Findings) -> bytes:
    """The content of a part with its transfer encoding undone; badly encoded content as far as it can be decoded."""
    raw = part.bytes
    said = part.get("content-transfer-encoding", "")
    encoding = one_line(str(said).partition(";")[0], 80).lower()
    if encoding == "base64":
        return unbase64(raw, findings)
    if encoding == "quoted-printable":
        return quopri.decodestring(_SOFT_CR.sub(b"=\n", raw))
    if encoding in _UUENCODE:
        files, _ = uuencoded(raw, findings)
        return files[0].data if files else raw
    if encoding not in _PLAIN:
        findings.flag("unknown_encoding", encoding)
    return raw


def _blocks_of(part: Part, content: MailContent, findings: Findings, *, careful: bool) -> list[Block]:
    findings.check_time()
    children = part.children()
    if not children:
        blocks: list[Block] = []
        with findings.flagging_errors("unparsed", "a part"):
            blocks.extend(_leaf(part, content, findings, careful=careful))
        return blocks
    walked = [_blocks_of(each, content, findings, careful=careful) for each in children]
    if part.kind == "multipart/alternative":
        return _best_alternative(walked)
    return [block for blocks in walked for block in blocks]


def _best_alternative(alternatives: list[list[Block]]) -> list[Block]:
    """The first plain alternative with text; without one, the last with text, which is the richest (RFC 2046 §5.1.4)."""
    telling = [blocks for blocks in alternatives if any(block.text.strip() for block in blocks)]
    plain = [blocks for blocks in telling if all(block.form == "plain" for block in blocks)]
    return (plain or telling[-1:] or [[]])[0]


def _leaf(part: Part, content: MailContent, findings: Findings, *, careful: bool) -> list[Block]:
    data = decoded_bytes(part, findings)
    kind = one_line(part.kind, 127)
    if kind.startswith("multipart/"):  # a leaf, since its boundary was not found
        kind = "text/plain"
    name = _name(part, findings)
    if kind in TNEF_TYPES and not careful:
        opened = open_tnef(data, findings)
        if opened.files or opened.text:
            for each in opened.files:
                _attach(
                    content,
                    Attachment(_safe_name(each.name), "application/octet-stream", *_digest(each.data), found_in="tnef"),
                    findings,
                )
            return [Block("tnef", opened.text)] if opened.text else []
    blocks: list[Block] = []
    if kind in ("text/plain", "text/html") and not _is_attached(part):
        if name is None:
            return _text(part, data, kind, content, findings, careful=careful)
        if part.get("content-disposition") is None:  # ambiguous: a named text, or a file without a disposition
            blocks = _text(part, data, kind, content, findings, careful=careful)
    if data or name is not None or kind != "text/plain":
        id_ = one_line(str(part.get("content-id", "")), MAX_NAME).strip("<>") or None
        inline = str(part.get("content-disposition", "")).strip().lower().startswith("inline") or id_ is not None
        inline = inline and not _is_attached(part)
        _attach(content, Attachment(name, kind, *_digest(data), inline, id_), findings)
    return blocks


def _text(part: Part, data: bytes, kind: str, content: MailContent, findings: Findings, *, careful: bool) -> list[Block]:
    if kind == "text/html" and careful:
        return []
    if kind == "text/plain" and b"begin " in data:
        files, data = uuencoded(data, findings)
        for each in files:
            found = Attachment(_safe_name(each.name), "application/octet-stream", *_digest(each.data), found_in="uuencode")
            _attach(content, found, findings)
    charset = part.get_param("charset", "")
    text = decoded(data, str(charset[2] if isinstance(charset, tuple) else charset), findings)
    if "\0" in text:
        findings.flag("nul", "in the text")
    if kind == "text/html":
        return [Block("html", text_of_html(text, findings))]
    return [Block("plain", "\n".join(storable(text).splitlines()))]


def _attach(content: MailContent, attachment: Attachment, findings: Findings) -> None:
    if len(content.attachments) == MAX_ATTACHMENTS:
        findings.flag("too_many_attachments")
    else:
        content.attachments.append(attachment)


def _digest(data: bytes) -> tuple[int, str]:
    return len(data), sha256(data).hexdigest()


def _is_attached(part: Part) -> bool:
    return str(part.get("content-disposition", "")).strip().lower().startswith("attachment")


def _name(part: Part, findings: Findings) -> str | None:
    """The file name of the part, in the form of RFC 2231 or in any other that occurs."""
    for header, parameter in (("content-disposition", "filename"), ("content-type", "name")):
        value: Any = part.given_name(parameter, header)
        if value is not None:
            return _safe_name(_parameter(value, findings))
    return None


def _parameter(value: Any, findings: Findings) -> str:
    if isinstance(value, tuple):
        charset, _language, text = value
        return decoded(str(text).encode("latin-1", "replace"), str(charset or "us-ascii"), findings)
    return phrase(str(value), findings)


def _safe_name(name: str) -> str:
    return one_line(name, MAX_NAME)


def _cut(blocks: list[Block]) -> list[Block]:
    kept, left = [], MAX_TEXT
    for block in blocks:
        kept.append(Block(block.form, block.text[:left]))
        left -= len(kept[-1].text)
    return kept
