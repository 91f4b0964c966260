"""The configuration file: what it may say (CONTRACT §3). Shapes only; `ops.config_file` reads it and finds its lines."""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from schemas.event import REQUIRED
from schemas.units import seconds, size

MAX_BODY: Final = 64 * 1024 * 1024  # bytes; well below what a broker takes in one message
MAX_TIMEOUT: Final = 60.0  # seconds; below the lease, or a slow endpoint would be sent everything twice
MAX_WAIT: Final = 7 * 86_400.0  # seconds between two tries
MAX_TRIES: Final = 50
WITHOUT_SECRETS: Final = ("none", "amqp")
TAKEN: Final = (*REQUIRED, "dataschema", "data")

_SLUG: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Checks:
    """What values are held against that is not known here. Each callable raises `ValueError`, saying what is wrong."""

    kinds: Collection[str]
    rule: Callable[[str], None]
    filter: Callable[[Any], object]
    secret: Callable[[str], str]  # a literal, env:NAME or file:PATH -> the secret itself
    source: Callable[["SourceSpec"], None]  # what only the source's kind can judge


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError(f"{value!r:.80} is not a name: a-z, 0-9 and, inside, -; 63 characters at most")
    return value


def _kind(value: str, info: ValidationInfo) -> str:
    if value not in info.context.kinds:
        raise ValueError(f"unknown kind {value!r:.80}; known are: " + ", ".join(info.context.kinds))
    return value


def _rule(value: str, info: ValidationInfo) -> str:
    info.context.rule(value)
    return value


def _secret(value: str, info: ValidationInfo) -> str:
    return str(info.context.secret(value))


def _whsec(value: str) -> str:
    """A Standard Webhooks secret; the message never holds it."""
    prefix, encoded = value[:6], value[6:]
    try:
        key = base64.b64decode(encoded, validate=True) if prefix == "whsec_" else b""
    except binascii.Error:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(value) > 2048:
        raise ValueError("must be an http:// or https:// URL, 2048 characters at most")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password; deliveries are signed instead")
    if parts.fragment or not value.isascii() or not value.isprintable() or " " in value or parts.port == 0:
        raise ValueError("must be a plain URL: no fragment, spaces or characters outside ASCII")
    return value


def _filter(value: Any, info: ValidationInfo) -> Any:
    info.context.filter(value)
    return value


def _extension(name: str) -> str:
    if not _EXTENSION.fullmatch(name) or name in TAKEN:
        raise ValueError(f"{name!r:.80} cannot be an extension: lower-case letters and digits, and none of {', '.join(TAKEN)}")
    return name


def _between(low: float, high: float, unit: str) -> Callable[[float], float]:
    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:g} {unit}")
        return value

    return check


def _unsupported(value: Any, info: ValidationInfo) -> Any:
    raise ValueError(f"{info.field_name} is not supported by this version; leave it out")


def _not_yet(value: bool, info: ValidationInfo) -> bool:
    if value:
        raise ValueError(f"{info.field_name}: true is not supported by this version")
    return value


Slug = Annotated[str, AfterValidator(_slug)]
Rule = Annotated[str, AfterValidator(_rule)]
Secret = Annotated[str, AfterValidator(_secret)]
Unsupported = Annotated[Any, BeforeValidator(_unsupported)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def settings(self) -> dict[str, Any]:
        """What was said, of that which is stored as settings; a default that was not asked for is not stored."""
        return {}


class TenantSpec(_Strict):
    """A tenant."""

    name: Slug


class SourceSpec(_Strict):
    """A source, its secrets in the clear."""

    tenant: Slug
    name: Slug
    kind: Annotated[str, AfterValidator(_kind)]
    secrets: list[Secret] = Field(default=[], repr=False)
    id: Rule | None = None
    type: Rule | None = None
    subject: Rule | None = None
    extensions: dict[Annotated[str, AfterValidator(_extension)], Rule] = {}
    max_body: Annotated[int, BeforeValidator(size), AfterValidator(_between(1, MAX_BODY, "bytes"))] | None = None
    tolerance: Annotated[int, BeforeValidator(lambda v: int(seconds(v))), AfterValidator(_between(1, 86_400, "s"))] | None = None
    options: dict[str, str] = {}
    rate_limit: Unsupported = None

    @model_validator(mode="after")
    def _suits_its_kind(self, info: ValidationInfo) -> Self:
        if self.kind in WITHOUT_SECRETS and self.secrets:
            raise ValueError(f"kind {self.kind} checks no signature, so it takes no secrets")
        if self.kind not in WITHOUT_SECRETS and not self.secrets:
            raise ValueError(f"kind {self.kind} needs secrets, at least one")
        info.context.source(self)
        return self

    def settings(self) -> dict[str, Any]:
        """What was said, of that which is stored as settings."""
        return _said(self, "id", "type", "subject", "extensions", "max_body", "tolerance", "options")


class EndpointSpec(_Strict):
    """An endpoint with its subscription, its secrets in the clear. No secrets: one is made at the first apply and kept."""

    tenant: Slug
    name: Slug
    url: Annotated[str, AfterValidator(_url)] | None = None
    secrets: Annotated[list[Annotated[Secret, AfterValidator(_whsec)]], Field(min_length=1)] | None = Field(None, repr=False)
    filter: Annotated[Mapping[str, Any], AfterValidator(_filter)] | None = None
    retry: (
        Annotated[
            list[Annotated[float, BeforeValidator(seconds), AfterValidator(_between(0.001, MAX_WAIT, "s"))]],
            Field(max_length=MAX_TRIES),
        ]
        | None
    ) = None
    timeout: Annotated[float, BeforeValidator(seconds), AfterValidator(_between(0.1, MAX_TIMEOUT, "s"))] | None = None
    max_in_flight: Annotated[int, AfterValidator(_between(1, 1000, "requests"))] | None = None
    ordered: Annotated[bool, AfterValidator(_not_yet)] = False
    rate_limit: Unsupported = None
    amqp: Unsupported = None
    smtp: Unsupported = None

    @model_validator(mode="after")
    def _has_somewhere_to_go(self) -> Self:
        if self.url is None:
            raise ValueError("needs url")
        return self

    def settings(self) -> dict[str, Any]:
        """What was said, of that which is stored as settings."""
        return _said(self, "retry", "timeout", "max_in_flight", "ordered")


class ConfigFile(_Strict):
    """The whole file. Names are unique and every tenant that is named exists: `ops.config_file` has seen to that."""

    tenants: list[TenantSpec] = []
    sources: list[SourceSpec] = []
    endpoints: list[EndpointSpec] = []
    mailboxes: Annotated[list[Unsupported], Field(max_length=0)] = []


def _said(spec: _Strict, *names: str) -> dict[str, Any]:
    said = {name: getattr(spec, name) for name in names if name in spec.model_fields_set}
    return {name: value for name, value in said.items() if value is not None}
