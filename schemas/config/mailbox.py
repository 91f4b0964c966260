"""A mailbox in the configuration file: where it is, how to log in, which of its mails are read."""

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from schemas.config.mailbox_kinds import MAIL_KINDS, MAILBOX_KINDS
from schemas.config.values import Retention, Secret, Slug, Spec, Url, between, checks
from schemas.mailbox import DEFAULT_SUBJECT, Mailbox, OAuth
from schemas.units import seconds

MAX_FOLDERS: Final = 200
MAX_NAME: Final = 255  # characters of a folder, a login, a subject
DEFAULT_POLL: Final = 300.0  # seconds

GOOGLE: Final = "https://oauth2.googleapis.com/token"
MICROSOFT: Final = "https://login.microsoftonline.com/{directory}/oauth2/v2.0/token"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def _instant(value: Any) -> Any:
    """A date, or a time with a zone, as YAML gives it or as text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        # YAML converts a time with a zone to UTC and drops the zone.
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValueError("must be a date, as 2026-01-31, or a time, as 2026-01-31T12:00:00Z")


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable() or len(value) > MAX_NAME:
        raise ValueError(f"must be one line of printable text, {MAX_NAME} characters at most")
    return value


def _subject(value: str, info: ValidationInfo) -> str:
    if value.startswith("header:"):
        checks(info).rule(value)
    return _line(value)


def _safe_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise ValueError("must be an https:// URL: tokens go there")
    return value


def _host(value: str) -> str:
    if not value.isascii() or not value.isprintable() or not value or len(value) > MAX_NAME or set(value) & set(" /@"):
        raise ValueError("must be the name or address of a mail server")
    return value


def _ca(text: str, info: ValidationInfo) -> str:
    pem = checks(info).pem(text)
    checks(info).tls(None, pem)
    return pem


if TYPE_CHECKING:
    KindName = str
else:
    KindName = Literal[MAIL_KINDS]

Line = Annotated[str, AfterValidator(_line)]
SafeUrl = Annotated[Url, AfterValidator(_safe_url)]
Instant = Annotated[datetime, BeforeValidator(_instant)]
Poll = Annotated[float, BeforeValidator(seconds), between(1, 86_400, "s")]


class OAuthSpec(Spec):
    """An application's right to read the mailbox (RFC 6749): its refresh token, and where to exchange it for access tokens."""

    provider: Literal["google", "microsoft"] | None = None
    directory: Line = "common"  # for microsoft: the directory (tenant) id
    token_url: SafeUrl | None = None
    client_id: Line
    client_secret: Secret | None = Field(None, repr=False)
    refresh_token: Secret = Field(repr=False)
    scope: Line | None = None

    def oauth(self, kind: str) -> OAuth | None:
        """The configured OAuth terms; None when neither provider nor `token_url` is known."""
        provider = self.provider or MAILBOX_KINDS[kind].provider
        known = {"google": GOOGLE, "microsoft": MICROSOFT.format(directory=self.directory)}
        url = self.token_url or known.get(provider or "")
        return OAuth(url, self.client_id, self.refresh_token, self.client_secret, self.scope) if url else None


class MailboxSpec(Spec):
    """A mailbox, its secrets in the clear."""

    tenant: Slug
    name: Slug
    kind: KindName
    username: Line
    host: Annotated[str, AfterValidator(_host)] | None = None
    port: Annotated[int, between(1, 65_535, "")] | None = None
    tls: bool = True
    ca: Annotated[str, AfterValidator(_ca)] | None = Field(None, repr=False)
    api_url: SafeUrl | None = None
    password: Secret | None = Field(None, repr=False)
    oauth: OAuthSpec | None = Field(None, repr=False)
    folders: Annotated[list[Line], Field(min_length=1, max_length=MAX_FOLDERS)] | None = None
    subject: Annotated[str, AfterValidator(_subject)] = DEFAULT_SUBJECT
    sync_from: Instant | None = None
    deliver_backfill: bool = True
    authserv_ids: Annotated[list[Line], Field(max_length=20)] = Field([])
    poll: Poll = DEFAULT_POLL
    retention: Retention | None = None

    @model_validator(mode="after")
    def _suits_its_kind(self) -> Self:
        problems = MAILBOX_KINDS[self.kind].problems(self)
        if self.oauth is not None and self.oauth.oauth(self.kind) is None:
            problems.append("oauth needs provider (google or microsoft) or token_url")
        if self.folders is not None and len(set(self.folders)) != len(self.folders):
            problems.append("a folder is there twice")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def mailbox(self, id_: int) -> Mailbox:
        """The configured mailbox."""
        kind = MAILBOX_KINDS[self.kind]
        return Mailbox(
            id_,
            self.tenant,
            self.name,
            self.kind,
            self.username,
            tuple(self.folders or kind.folders),
            self.host or "",
            (self.port or kind.ports[self.tls]) if kind.ports else 0,
            self.tls,
            self.ca,
            self.api_url,
            self.password,
            None if self.oauth is None else self.oauth.oauth(self.kind),
            self.subject,
            self.sync_from,
            self.deliver_backfill,
            tuple(self.authserv_ids),
            self.poll,
            self.retention,
        )
