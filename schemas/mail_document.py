"""A mail's document: what is parsed from its raw bytes. Derived, never hashed, and can be made again at any time."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

#: The parser's version; raise it with every change of its output, so that outdated documents can be found.
PARSER: Final = 2
FORM: Final = "waxseal/mail-document/v1"
CONTENT_TYPE: Final = "application/json"
SCHEMA: Final = "urn:waxseal:mail-document:v1"  # the CloudEvents dataschema of a delivered document

#: Every irregularity that is reported of a mail.
Flag = Literal[
    "unparsed",  # the parser gave up, `notes` say why; the document holds what was read before
    "careful",  # made without HTML, TNEF and signatures, because the first try took too long or crashed
    "out_of_time",  # the rest was not read
    "too_large",  # likewise
    "too_many_lines",
    "too_deep",
    "too_many_parts",
    "too_many_headers",
    "too_many_addresses",
    "too_many_references",
    "too_many_attachments",
    "too_many_signatures",
    "header_block_too_large",
    "header_too_long",
    "text_cut",
    "no_headers",
    "malformed_header",
    "malformed_address",
    "address_in_name",  # a display name that looks like an address other than the one beside it
    "malformed_message_id",
    "malformed_mime",
    "malformed_tnef",
    "malformed_uuencode",
    "malformed_html",
    "malformed_authentication_results",
    "bad_date",
    "bad_encoding",  # malformed base64, quoted-printable or encoded word
    "unknown_encoding",
    "bad_charset",  # bytes that are not valid in the declared charset
    "unknown_charset",
    "guessed_charset",
    "raw_8bit_header",
    "line_end_in_word",  # an encoded word that holds a line end: an attempt at header injection
    "nul",
    "bare_line_ends",  # lines that end in CR alone, or in LF while other lines end in CRLF
    "duplicate_from",
    "duplicate_header",
    "no_from",
    "no_date",
    "no_message_id",
    "refers_to_itself",
]

#: A result of authentication, of a signature that was checked here or as a trusted server reports it.
Result = Literal["pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror", "unknown"]


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox as a header names it: the display name, decoded, and the address in angle brackets."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment. `name` is the sender's text: never use it as a path. `size` and `sha256` are of the decoded bytes."""

    name: str | None
    content_type: str
    size: int
    sha256: str
    inline: bool = False
    content_id: str | None = None
    found_in: Literal["mime", "tnef", "uuencode"] = "mime"


@dataclass(frozen=True, slots=True)
class Automatic:
    """Marks a mail as written by a machine, and how: an automatic reply, other generated mail, list or bulk mail."""

    kind: Literal["auto_reply", "auto_generated", "list", "bulk"]
    rests_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A recipient in a delivery status notification (RFC 3464)."""

    recipient: str
    action: str | None = None  # failed, delayed, delivered, relayed, expanded
    status: str | None = None  # RFC 3463, as 5.1.1
    diagnostic: str | None = None


@dataclass(frozen=True, slots=True)
class Bounce:
    """Marks a mail as a report on another mail. `likely` rests on sender and subject alone; all of it can be forged."""

    kind: Literal["dsn", "arf", "mdn", "likely"]  # RFC 3464, RFC 5965, RFC 8098
    rests_on: tuple[str, ...]
    recipients: tuple[Failed, ...] = ()
    original_message_id: str | None = None
    feedback: str | None = None  # of an arf: abuse, fraud, virus, other, not-spam


@dataclass(frozen=True, slots=True)
class Spam:
    """The verdict that a spam filter on the mail's way wrote into its headers. The sender can forge it."""

    result: Literal["spam", "ham", "unknown"] = "unknown"
    score: float | None = None
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A result and the evidence for it."""

    result: Result
    rests_on: str
    domain: str | None = None
    detail: str | None = None


UNKNOWN: Final = Verdict("unknown", "nothing: no Authentication-Results of a server that is trusted")
UNCHECKED: Final = "nothing: signatures were not checked"


@dataclass(frozen=True, slots=True)
class Authentication:
    """`dkim` and `arc` are checked here, against the keys in DNS at that time. The rest is what a trusted server found."""

    dkim: tuple[Verdict, ...] = ()
    arc: Verdict = field(default_factory=lambda: Verdict("unknown", UNCHECKED))
    spf: Verdict = UNKNOWN
    dmarc: Verdict = UNKNOWN
    servers: tuple[Verdict, ...] = ()  # the trusted server's results for DKIM and all other methods


@dataclass(frozen=True, slots=True)
class MailDocument:
    """All that is parsed from a mail. `size` (in bytes) and `sha256` are of the raw bytes."""

    size: int
    sha256: str
    from_: tuple[Address, ...] = ()
    sender: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    subject: str | None = None
    date: str | None = None  # RFC 3339 in UTC, as the sender states it
    message_id: str | None = None  # with its angle brackets; so are the next two
    in_reply_to: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    text: str | None = None
    text_from: Literal["plain", "html", "mixed", "tnef"] | None = None
    attachments: tuple[Attachment, ...] = ()
    parts: int = 0
    automatic: Automatic | None = None
    bounce: Bounce | None = None
    spam: Spam = field(default_factory=Spam)
    authentication: Authentication = field(default_factory=Authentication)
    flags: tuple[Flag, ...] = ()
    notes: tuple[str, ...] = ()  # explanations of the flags, for people
    parser: int = PARSER
    v: str = FORM


def view(document: MailDocument) -> dict[str, Any]:
    """The document as a JSON object."""
    return {name.rstrip("_"): value for name, value in asdict(document).items()}
