"""From a mail's raw bytes to its document. Never raises: what cannot be read is missing and flagged; the rest is present."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pipeline.mail import classification
from pipeline.mail.authentication import Dns, authenticate
from pipeline.mail.charsets import phrase
from pipeline.mail.content import read_content
from pipeline.mail.flags import SECONDS, Findings, unparsed
from pipeline.mail.headers import Fields, addresses, date_of, id_of, ids, look_for_oddities, read_fields, references
from pipeline.mail.mime import Part, count, read_parts
from schemas.mail_document import MailDocument


@dataclass(frozen=True, slots=True)
class ParsingTerms:
    """How to read a mail: the servers whose Authentication-Results are trusted, the look-up of keys, and a time limit.

    Without `dns`, no signature is verified. If `careful`, no format is opened whose library has no bounds.
    """

    trusted: Collection[str] = ()
    dns: Dns | None = field(default=None, repr=False)
    seconds: float = SECONDS
    careful: bool = False


def mail_document(raw: bytes, terms: ParsingTerms, clock: Callable[[], float]) -> MailDocument:
    """The document of a mail, whatever its bytes. The same bytes, terms and keys give the same document.

    Reading stops before the first part that begins after `terms.seconds`, by `clock`; the time for one part is bounded only by
    its size. A caller that needs a hard limit runs this in a process that it can kill.
    """
    try:
        return _document(raw, terms, clock)
    except Exception as error:  # noqa: BLE001 - the promise of this module
        return unparsed(raw, f"{type(error).__name__}: {error}")


def _document(raw: bytes, terms: ParsingTerms, clock: Callable[[], float]) -> MailDocument:
    findings = Findings(clock, terms.seconds)
    if terms.careful:
        findings.flag("careful")
    fields = read_fields(raw, findings)
    look_for_oddities(fields, raw, findings)
    found = _header_members(fields, findings)
    root = read_parts(raw, findings)
    content = read_content(root, findings, careful=terms.careful)
    found |= _classification_members(fields, root, findings)
    with findings.flagging_errors("unparsed", "signatures"):
        found["authentication"] = authenticate(raw, fields, terms.trusted, terms.dns, findings, careful=terms.careful)
    return MailDocument(
        len(raw),
        sha256(raw).hexdigest(),
        **found,
        text=content.text,
        text_from=content.text_from,
        attachments=tuple(content.attachments),
        parts=count(root),
        flags=findings.flags,
        notes=findings.notes,
    )


def _header_members(fields: Fields, findings: Findings) -> dict[str, Any]:
    names = {"from_": "from", "sender": "sender", "reply_to": "reply-to", "to": "to", "cc": "cc", "bcc": "bcc"}
    found: dict[str, Any] = {key: addresses(fields, name, findings) for key, name in names.items()}
    with findings.flagging_errors("unparsed", "header"):
        subject = fields.first("subject")
        found["subject"] = None if subject is None else phrase(subject, findings)
        moment = date_of(fields, findings)
        found["date"] = None if moment is None else moment.isoformat().replace("+00:00", "Z")
        found["message_id"] = id_of(fields, findings)
        answered = fields.first("in-reply-to")
        found["in_reply_to"] = tuple(ids(answered, findings)[:10]) if answered else ()
        found["references"] = references(fields, found["message_id"], findings)
    return found


def _classification_members(fields: Fields, root: Part, findings: Findings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with findings.flagging_errors("unparsed", "reports"):
        found["automatic"] = classification.automatic(fields, findings)
        found["spam"] = classification.spam(fields, findings)
        found["bounce"] = classification.bounce(fields, root, findings)
    return found
