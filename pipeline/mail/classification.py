"""Classification of a mail by its own headers and parts: automatic, a report about another mail, spam."""

import re
from typing import Final, Literal

from pipeline.mail.charsets import one_line, phrase
from pipeline.mail.content import decoded_bytes
from pipeline.mail.flags import Findings
from pipeline.mail.headers import Fields, ids, read_fields
from pipeline.mail.mime import Part
from schemas.mail_document import Automatic, Bounce, Failed, Spam

MAX_RECIPIENTS: Final = 100
MAX_REPORT: Final = 256 * 1024  # bytes of a machine-readable report
SHOWN: Final = 200  # characters of a header that is quoted as evidence

Kind = Literal["auto_reply", "auto_generated", "list", "bulk"]

#: (header, pattern of its value, meaning), highest priority first.
_AUTOMATIC: Final[tuple[tuple[str, re.Pattern[str], Kind], ...]] = (
    ("auto-submitted", re.compile(r"auto-(?:replied|notified)\b", re.IGNORECASE), "auto_reply"),
    ("x-autoreply", re.compile(r"(?!no\b|false\b).", re.IGNORECASE), "auto_reply"),
    ("x-autorespond", re.compile(r"."), "auto_reply"),
    ("x-autoreply-from", re.compile(r"."), "auto_reply"),
    ("x-mail-autoreply", re.compile(r"."), "auto_reply"),
    ("precedence", re.compile(r"auto_?-?reply\b", re.IGNORECASE), "auto_reply"),
    ("x-precedence", re.compile(r"auto_?-?reply\b", re.IGNORECASE), "auto_reply"),
    (
        "subject",
        re.compile(
            r"(?:auto(?:matic)?[- ]?(?:reply|response|antwort)\b|auto:|out of (?:the )?office\b|automatische antwort\b"
            r"|abwesenheits|r[ée]ponse automatique\b|respuesta autom[áa]tica\b|risposta automatica\b)",
            re.IGNORECASE,
        ),
        "auto_reply",
    ),
    ("auto-submitted", re.compile(r"(?!no\b).", re.IGNORECASE), "auto_generated"),
    ("list-id", re.compile(r"."), "list"),
    ("list-post", re.compile(r"."), "list"),
    ("precedence", re.compile(r"list\b", re.IGNORECASE), "list"),
    ("precedence", re.compile(r"(?:bulk|junk)\b", re.IGNORECASE), "bulk"),
    ("list-unsubscribe", re.compile(r"."), "bulk"),
    ("x-auto-response-suppress", re.compile(r"(?!none\b).", re.IGNORECASE), "auto_generated"),
    ("return-path", re.compile(r"<\s*>$"), "auto_generated"),
)
_DAEMONS: Final = re.compile(r"(?:mailer-daemon|mail-daemon|postmaster)@", re.IGNORECASE)
_UNDELIVERED: Final = re.compile(
    r"undeliver|delivery (?:status notification|failure|has failed)|mail delivery (?:failed|system)|returned mail"
    r"|failure notice|unzustellbar|non remis",
    re.IGNORECASE,
)
_REPORTS: Final[dict[str, Literal["dsn", "arf", "mdn"]]] = {
    "message/delivery-status": "dsn",
    "message/global-delivery-status": "dsn",
    "message/feedback-report": "arf",
    "message/disposition-notification": "mdn",
}
_ORIGINALS: Final = ("message/rfc822", "text/rfc822-headers", "message/global", "message/rfc822-headers")
_BLOCKS: Final = re.compile(rb"(?>\r\n|\n|\r){2,}")
_SCORE: Final = re.compile(r"(?:score\s*=\s*|^\s*)(-?\d{1,6}(?:\.\d{1,6})?)")
_SCL: Final = re.compile(r"\bSCL:(-?\d{1,2})\b")
_SPAM_LEVEL: Final = 5  # Exchange treats this SCL and higher ones as spam


def automatic(fields: Fields, findings: Findings) -> Automatic | None:
    """The evidence that a machine wrote the mail, so that a reply could start a loop; None without evidence."""
    found: list[tuple[Kind, str]] = []
    for name, pattern, kind in _AUTOMATIC:
        value = phrase(fields.first(name) or b"", findings, SHOWN)
        if value and pattern.match(value):
            found.append((kind, f"{name}: {value}"))
    if not found:
        return None
    kind = found[0][0]
    return Automatic(kind, tuple(dict.fromkeys(text for each, text in found if each == kind)))


def bounce(fields: Fields, root: Part, findings: Findings) -> Bounce | None:
    """The report about another mail, from a machine-readable part, or else guessed from sender and subject; None if not one."""
    leaves = list(root.leaves())
    kind = next((_REPORTS[part.kind] for part in leaves if part.kind in _REPORTS), None)
    if kind:
        reports = [part for part in leaves if _REPORTS.get(part.kind) == kind]
        blocks = _all_blocks(reports, findings)
        feedback = _field_text(blocks, "feedback-type", findings) if kind == "arf" else None
        recipients = () if kind == "arf" else _recipients(blocks, findings)
        rests_on = tuple(dict.fromkeys(f"a part of type {part.kind}" for part in reports))
        return Bounce(kind, rests_on, recipients, _original(leaves, blocks, findings), feedback)
    sender = phrase(fields.first("from") or b"", findings, SHOWN)
    subject = phrase(fields.first("subject") or b"", findings, SHOWN)
    if _DAEMONS.search(sender) and _UNDELIVERED.search(subject):
        return Bounce("likely", (f"from: {sender}", f"subject: {subject}"), (), _original(leaves, [], findings))
    return None


def spam(fields: Fields, findings: Findings) -> Spam:
    """The verdict of spam filters, from the headers of SpamAssassin, rspamd and Exchange."""
    said = {name: phrase(fields.first(name) or b"", findings, SHOWN) for name in _FILTERS}
    rests = tuple(f"{name}: {value}" for name, value in said.items() if value)
    if not rests:
        return Spam()
    score = next((float(match[1]) for name in _SCORES if (match := _SCORE.search(said[name]))), None)
    level = _SCL.search(said["x-forefront-antispam-report"])
    scl = int(level[1]) if level else _number(said["x-ms-exchange-organization-scl"])
    verdicts = [_boolean(said["x-spam-flag"]), _boolean(said["x-spam-status"]), _boolean(said["x-spam"])]
    verdicts.append(None if scl is None else scl >= _SPAM_LEVEL)
    if any(verdicts):
        return Spam("spam", score, rests)
    return Spam("ham" if False in verdicts else "unknown", score, rests)


_SCORES: Final = ("x-spam-score", "x-spam-status", "x-rspamd-score")
_FILTERS: Final = ("x-spam-flag", "x-spam", *_SCORES, "x-ms-exchange-organization-scl", "x-forefront-antispam-report")


def _boolean(value: str) -> bool | None:
    word = value.partition(",")[0].strip().lower()
    return True if word in ("yes", "true") else False if word in ("no", "false") else None


def _number(value: str) -> int | None:
    return int(value) if re.fullmatch(r"-?\d{1,3}", value) else None


def _all_blocks(reports: list[Part], findings: Findings) -> list[Fields]:
    """The blocks of all reports in a mail: each may name other recipients."""
    blocks: list[Fields] = []
    for part in reports:
        blocks += _blocks(decoded_bytes(part, findings)[:MAX_REPORT])
        if len(blocks) > MAX_RECIPIENTS:
            break
    return blocks


def _blocks(report: bytes) -> list[Fields]:
    blocks = (block.strip(b"\r\n") for block in _BLOCKS.split(report)[: MAX_RECIPIENTS + 1])
    return [read_fields(block, Findings()) for block in blocks if block.strip()]


def _field_text(blocks: list[Fields], name: str, findings: Findings) -> str | None:
    value = next((each for block in blocks if (each := block.first(name))), None)
    return None if value is None else phrase(value, findings, SHOWN)


def _recipients(blocks: list[Fields], findings: Findings) -> tuple[Failed, ...]:
    found = []
    for block in blocks:
        named = block.first("final-recipient") or block.first("original-recipient")
        if named is not None:
            said = [_field_text([block], name, findings) for name in ("action", "status", "diagnostic-code")]
            action = said[0] or _field_text([block], "disposition", findings)
            recipient = phrase(named, findings, SHOWN).rpartition(";")[2].strip()
            found.append(Failed(recipient, action and action.lower(), said[1], said[2]))
    return tuple(found)


def _original(leaves: list[Part], blocks: list[Fields], findings: Findings) -> str | None:
    """The Message-ID of the reported mail, from the enclosed copy or from the report's fields."""
    for part in leaves:
        if part.kind in _ORIGINALS:
            value = read_fields(decoded_bytes(part, findings)[:MAX_REPORT], Findings()).first("message-id")
            found = ids(value, findings) if value else []
            if found:
                return found[0]
    value = next((each for block in blocks if (each := block.first("original-message-id"))), None)
    return one_line(ids(value, findings)[0]) if value and ids(value, findings) else None
