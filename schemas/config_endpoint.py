"""An endpoint in the configuration file: where it is, and under which terms."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from schemas.config_spec import Spec
from schemas.config_values import Filter, InFlight, Retry, Secret, Slug, Timeout, Url, Whsec, between, checks
from schemas.endpoint import (
    DEFAULT_EXCHANGE,
    DEFAULT_ROUTING_KEY,
    DEFAULT_SUBJECT,
    AmqpTarget,
    Body,
    Endpoint,
    SmtpTarget,
    Transport,
)
from schemas.units import per_second, seconds

MAX_AGE: Final = 366 * 86_400.0  # seconds
MAX_RATE: Final = 100_000.0  # deliveries per second
MAX_RECIPIENTS: Final = 50
MAX_HEADERS: Final = 20
MAX_TEMPLATE: Final = 64 * 1024  # characters
PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}

_EXCHANGE: Final = re.compile(r"[\w.:-]{1,127}", re.ASCII)
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_PLACES: Final = ("tenant", "type", "source", "subject")
_MAILBOX: Final = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}"
_ADDRESS: Final = re.compile(rf"{_MAILBOX}|[^<>\"\\(),:;@\[\]]{{1,100}} <{_MAILBOX}>")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")
#: Ours, and those that belong to one connection: an endpoint's own header may be none of these, nor begin like `_OURS_BEGIN`.
_OURS: Final = frozenset(
    {"content-type", "content-length", "host", "user-agent", "traceparent", "date", "connection", "keep-alive", "te"}
    | {"transfer-encoding", "trailer", "upgrade", "expect", "proxy-connection", "proxy-authorization"}
)
_OURS_BEGIN: Final = ("webhook-", "ce-")


def _exchange(name: str) -> str:
    if not _EXCHANGE.fullmatch(name):
        raise ValueError("must be the name of an exchange: letters, digits, and - _ . :")
    if (name.startswith("waxseal.") and name != DEFAULT_EXCHANGE) or name.startswith("amq.rabbitmq."):
        raise ValueError(f"is not to be published to: use {DEFAULT_EXCHANGE} or an exchange of your own")
    return name


def _routing_key(key: str) -> str:
    unknown = [place for place in _PLACE.findall(key) if place not in _PLACES]
    if unknown or len(key.encode()) > 255:
        raise ValueError("must have at most 255 bytes, and in braces only " + ", ".join(_PLACES))
    return key


def _address(address: str) -> str:
    if not address.isascii() or not address.isprintable() or not _ADDRESS.fullmatch(address):
        raise ValueError("must be a mail address, as ops@acme.example or Shop <shop@acme.example>, in ASCII")
    return address


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError("must be the name or address of a mail server")
    return host


def _template(source: str, info: ValidationInfo) -> str:
    if len(source) > MAX_TEMPLATE:
        raise ValueError(f"must have at most {MAX_TEMPLATE} characters")
    checks(info).template(source)
    return source


def _header(name: str) -> str:
    lower = name.lower()
    if not _HEADER.fullmatch(lower):
        raise ValueError("is not the name of a header")
    if lower in _OURS or lower.startswith(_OURS_BEGIN):
        raise ValueError(f"{lower} is set by Waxseal, or by the connection")
    return lower


def _header_value(value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > 4096 or value != value.strip():
        raise ValueError("must be printable ASCII without spaces around it, 4096 characters at most")
    return value


def _client_cert(text: str, info: ValidationInfo) -> str:
    pem = checks(info).pem(text)
    checks(info).tls(pem, None)
    return pem


def _ca(text: str, info: ValidationInfo) -> str:
    pem = checks(info).pem(text)
    checks(info).tls(None, pem)
    return pem


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Rate = Annotated[float, BeforeValidator(per_second), between(1 / 86_400, MAX_RATE, "per second")]
Age = Annotated[float, BeforeValidator(seconds), between(1, MAX_AGE, "s")]
Address = Annotated[str, AfterValidator(_address)]
Template = Annotated[str, AfterValidator(_template)]
HeaderName = Annotated[str, AfterValidator(_header)]
HeaderValue = Annotated[Secret, AfterValidator(_header_value)]


class AmqpSpec(Spec):
    """An exchange of the broker."""

    exchange: Annotated[str, AfterValidator(_exchange)] = DEFAULT_EXCHANGE
    routing_key: Annotated[str, AfterValidator(_routing_key)] = DEFAULT_ROUTING_KEY

    def target(self) -> AmqpTarget:
        """The target as it is wanted."""
        return AmqpTarget(self.exchange, self.routing_key)


class SmtpSpec(Spec):
    """Recipients, and the server that takes mails for them."""

    to: Annotated[list[Address], BeforeValidator(_listed), Field(min_length=1, max_length=MAX_RECIPIENTS)]
    sender: Address = Field(alias="from")
    host: Annotated[str, AfterValidator(_host)]
    security: Literal["starttls", "tls", "none"] = "starttls"
    port: Annotated[int, between(1, 65_535, "")] | None = None
    username: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Secret | None = Field(None, repr=False)
    subject: Template = DEFAULT_SUBJECT
    text: Template | None = None

    @model_validator(mode="after")
    def _keeps_its_password(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("needs username and password, or neither")
        if self.password is not None and self.security == "none":
            raise ValueError("must not send a password in the clear; use security: starttls or tls")
        return self

    def target(self) -> SmtpTarget:
        """The target as it is wanted."""
        port = self.port or PORTS[self.security]
        login = self.username, self.password
        return SmtpTarget(tuple(self.to), self.sender, self.host, port, self.security, *login, self.subject, self.text)


class EndpointSpec(Spec):
    """An endpoint with its subscription, its secrets in the clear. No secrets: one is made at the first apply and kept."""

    tenant: Slug
    name: Slug
    url: Url | None = None
    amqp: AmqpSpec | None = None
    smtp: SmtpSpec | None = None
    secrets: Annotated[list[Whsec], Field(min_length=1)] | None = Field(None, repr=False)
    filter: Filter | None = None
    retry: Retry | None = None
    max_age: Age | None = None
    timeout: Timeout | None = None
    max_in_flight: InFlight | None = None
    rate_limit: Rate | None = None
    ordered: bool = False
    body: Body = "raw"
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=MAX_HEADERS)] = Field({}, repr=False)
    client_cert: Annotated[str, AfterValidator(_client_cert)] | None = Field(None, repr=False)
    ca: Annotated[str, AfterValidator(_ca)] | None = Field(None, repr=False)

    @model_validator(mode="after")
    def _has_one_place_to_go(self) -> Self:
        if [self.url, self.amqp, self.smtp].count(None) != 2:
            raise ValueError("needs url, amqp or smtp, and one of them only")
        useless = {"http": (), "amqp": ("secrets", "headers", "client_cert", "ca"), "smtp": ("secrets", "headers")}
        for name in useless[self.transport]:
            if getattr(self, name):
                raise ValueError(f"{name} is of no use to an endpoint with {self.transport}")
        return self

    @property
    def transport(self) -> Transport:
        """How it is reached."""
        return "amqp" if self.amqp is not None else "smtp" if self.smtp is not None else "http"

    def terms(self) -> dict[str, Any]:
        """What was said of the terms; defaults are not."""
        return self.said("retry", "max_age", "timeout", "max_in_flight", "rate_limit", "ordered", "body")

    def endpoint(self, id_: int, secrets: tuple[str, ...]) -> Endpoint:
        """The endpoint as it is wanted."""
        terms: dict[str, Any] = {name: tuple(value) if name == "retry" else value for name, value in self.terms().items()}
        return Endpoint(
            id_,
            self.tenant,
            self.name,
            self.url or "",
            secrets,
            self.filter,
            transport=self.transport,
            amqp=None if self.amqp is None else self.amqp.target(),
            smtp=None if self.smtp is None else self.smtp.target(),
            headers=self.headers,
            client_cert=self.client_cert,
            ca=self.ca,
            **terms,
        )
