"""Endpoints over SMTP: recipients, and the server that mails to them are sent through."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from schemas.config.transport import Dialled, Transport
from schemas.config.values import Secret, Spec, between, checks

DEFAULT_SUBJECT: Final = "{{ event.type }}: {{ event.subject }}"
MAX_RECIPIENTS: Final = 50
MAX_TEMPLATE: Final = 64 * 1024  # characters
PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}

_MAILBOX: Final = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}"
_ADDRESS: Final = re.compile(rf"{_MAILBOX}|[^<>\"\\(),:;@\[\]]{{1,100}} <{_MAILBOX}>")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")


@dataclass(frozen=True, slots=True)
class SmtpTarget:
    """The recipients and the server of an `smtp` endpoint. `subject` and `text` are Jinja2 templates, rendered in a sandbox."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    subject: str = DEFAULT_SUBJECT
    text: str | None = None


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


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_address)]
Template = Annotated[str, AfterValidator(_template)]


class SmtpSpec(Spec):
    """Recipients, and the server that mails to them are sent through."""

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
        """The configured target."""
        port = self.port or PORTS[self.security]
        login = self.username, self.password
        return SmtpTarget(tuple(self.to), self.sender, self.host, port, self.security, *login, self.subject, self.text)


def _dials(spec: SmtpSpec) -> list[Dialled]:
    return [(("host",), spec.host)]


TRANSPORT: Final = Transport("smtp", "smtp", SmtpSpec, SmtpTarget, useless=("secrets", "headers"), dials=_dials)
