"""A mail's document: what can be read out of its raw bytes. Derived, never hashed, and made again at any time."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

#: Moves with every change of what is read out, so that older documents are known for what they are.
PARSER: Final = 2
FORM: Final = "waxseal/mail-document/v1"
CONTENT_TYPE: Final = "application/json"
SCHEMA: Final = "urn:waxseal:mail-document:v1"  # the CloudEvents dataschema of what is delivered

#: Everything odd that is told of a mail.
Flag = Literal[
    "unparsed",  # the parser gave up, and `notes` say why; what was read before that is there
    "careful",  # made without opening HTML, TNEF and signatures: the first try took too long or died
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
    "address_in_name",  # a name that looks like another address than the one that the mail is from, or goes to
    "malformed_message_id",
    "malformed_mime",
    "malformed_tnef",
    "malformed_uuencode",
    "malformed_html",
    "malformed_authentication_results",
    "bad_date",
    "bad_encoding",  # base64, quoted-printable or an encoded word that is not well-formed
    "unknown_encoding",
    "bad_charset",  # bytes that are not of the charset that they are said to be of
    "unknown_charset",
    "guessed_charset",
    "raw_8bit_header",
    "line_end_in_word",  # an encoded word that holds a line's end: an attempt to smuggle a header in
    "nul",
    "bare_line_ends",  # lines that end in CR alone, or in LF while others end in CRLF
    "duplicate_from",
    "duplicate_header",
    "no_from",
    "no_date",
    "no_message_id",
    "refers_to_itself",
]

#: What somebody who answers for a domain, or a server that we trust, says of a mail.
Result = Literal["pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror", "unknown"]


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox as a header names it: what is before the angle brackets, decoded, and what is inside."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """What came with it. `name` is what the sender wrote, and never a path to write to. The rest is of the decoded bytes."""

    name: str | None
    content_type: str
    size: int
    sha256: str
    inline: bool = False
    content_id: str | None = None
    found_in: Literal["mime", "tnef", "uuencode"] = "mime"


@dataclass(frozen=True, slots=True)
class Automatic:
    """That a machine wrote it: an answer of a machine's, a mail of a list or in bulk, or something else; and what says so."""

    kind: Literal["auto_reply", "auto_generated", "list", "bulk"]
    rests_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A recipient that a delivery status notification (RFC 3464) speaks of."""

    recipient: str
    action: str | None = None  # failed, delayed, delivered, relayed, expanded
    status: str | None = None  # RFC 3463, as 5.1.1
    diagnostic: str | None = None


@dataclass(frozen=True, slots=True)
class Bounce:
    """That it reports of another mail. `likely` rests on its sender and subject alone; anybody can write any of it."""

    kind: Literal["dsn", "arf", "mdn", "likely"]  # RFC 3464, RFC 5965, RFC 8098
    rests_on: tuple[str, ...]
    recipients: tuple[Failed, ...] = ()
    original_message_id: str | None = None
    feedback: str | None = None  # of an arf: abuse, fraud, virus, other, not-spam


@dataclass(frozen=True, slots=True)
class Spam:
    """What a filter on the mail's way wrote into it, which its sender may have written as well."""

    result: Literal["spam", "ham", "unknown"] = "unknown"
    score: float | None = None
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A result and what it rests on."""

    result: Result
    rests_on: str
    domain: str | None = None
    detail: str | None = None


UNKNOWN: Final = Verdict("unknown", "nothing: no Authentication-Results of a server that is trusted")
UNCHECKED: Final = "nothing: signatures were not checked"


@dataclass(frozen=True, slots=True)
class Authentication:
    """`dkim` and `arc` are checked here, against keys in DNS as they are now. The rest is what a trusted server found."""

    dkim: tuple[Verdict, ...] = ()
    arc: Verdict = field(default_factory=lambda: Verdict("unknown", UNCHECKED))
    spf: Verdict = UNKNOWN
    dmarc: Verdict = UNKNOWN
    servers: tuple[Verdict, ...] = ()  # what the trusted server says of DKIM and anything else


@dataclass(frozen=True, slots=True)
class MailDocument:
    """All that is read out of a mail. `size` in bytes and `sha256` are of the raw bytes."""

    size: int
    sha256: str
    from_: tuple[Address, ...] = ()
    sender: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    subject: str | None = None
    date: str | None = None  # RFC 3339 in UTC, as the sender says
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
    notes: tuple[str, ...] = ()  # on the flags, for people
    parser: int = PARSER
    v: str = FORM


def view(document: MailDocument) -> dict[str, Any]:
    """The document as JSON has it."""
    return {name.rstrip("_"): value for name, value in asdict(document).items()}
