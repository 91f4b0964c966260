"""The types of values in the configuration file, each with its checks. Messages say what to write and never show a secret."""

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from schemas.blob import LARGEST
from schemas.event import REQUIRED
from schemas.source import Source
from schemas.units import seconds, size

MAX_BODY: Final = LARGEST  # bytes
MAX_TIMEOUT: Final = 60.0  # seconds; shorter than the lease, or a slow endpoint would get everything twice
MAX_WAIT: Final = 7 * 86_400.0  # seconds between two tries
MAX_TRIES: Final = 50
MIN_RETENTION: Final = 86_400  # seconds
MAX_RETENTION: Final = 100 * 365 * 86_400
MAX_URL: Final = 2048  # characters
TAKEN: Final = (*REQUIRED, "dataschema", "data", "headers")

_SLUG: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks of values that this package cannot make itself. All but `source` raise `ValueError` that says what is wrong."""

    kinds: Collection[str]
    rule: Callable[[str], None]
    filter: Callable[[Mapping[str, Any]], object]
    secret: Callable[[str], str]  # a literal, env:NAME or file:PATH -> the secret itself
    pem: Callable[[str], str]  # likewise, PEM text
    tls: Callable[[str | None, str | None], object]  # a client certificate and authorities, both PEM
    template: Callable[[str], None]
    source: Callable[[Source], list[str]]  # the problems that its kind finds in a source


def checks(info: ValidationInfo) -> Checks:
    """The checks in the validation context."""
    assert isinstance(info.context, Checks)
    return info.context


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError(f"{value!r:.80} is not a name: a-z, 0-9 and, inside, -; 63 characters at most")
    return value


def _kind(value: str, info: ValidationInfo) -> str:
    if value not in checks(info).kinds:
        raise ValueError(f"unknown kind {value!r:.80}; known are: " + ", ".join(checks(info).kinds))
    return value


def _rule(value: str, info: ValidationInfo) -> str:
    checks(info).rule(value)
    return value


def _secret(value: str, info: ValidationInfo) -> str:
    return checks(info).secret(value)


def _filter(value: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
    checks(info).filter(value)
    return value


def _whsec(value: str) -> str:
    """Requires the form of Standard Webhooks 1.0: the prefix, then the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(value[6:], validate=True) if value.startswith("whsec_") else b""
    except binascii.Error:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(value) > MAX_URL:
        raise ValueError(f"must be an http:// or https:// URL, {MAX_URL} characters at most")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password; deliveries are signed instead")
    if parts.fragment or not value.isascii() or not value.isprintable() or " " in value or parts.port == 0:
        raise ValueError("must be a plain URL: no fragment, spaces or characters outside ASCII")
    return value


def _broker_user(name: str) -> str:
    if not 1 <= len(name.encode()) <= 255 or not name.isprintable():
        raise ValueError("must be the name of a user of RabbitMQ")
    return name


def _extension(name: str) -> str:
    if not _EXTENSION.fullmatch(name) or name in TAKEN:
        raise ValueError(f"{name!r:.80} cannot be an extension: lower-case letters and digits, and none of {', '.join(TAKEN)}")
    return name


def between(low: float, high: float, unit: str) -> AfterValidator:
    """Requires a number from `low` to `high`, both included; `unit` is for the message."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g} to {high:.9g} {unit}".rstrip())
        return value

    return AfterValidator(check)


def _waits(retry: list[float]) -> list[float]:
    if not retry:
        raise ValueError("must hold at least one wait, as [5s, 5m]; leave it out for the default schedule")
    return retry


def _whole_seconds(value: object) -> int:
    return int(seconds(value))


def _retention(value: object) -> int:
    found = int(seconds(value))
    if not MIN_RETENTION <= found <= MAX_RETENTION:
        raise ValueError("must be a day at least and 36500d at most, as 90d")
    return found


Slug = Annotated[str, AfterValidator(_slug)]
Kind = Annotated[str, AfterValidator(_kind)]
Rule = Annotated[str, AfterValidator(_rule)]
Filter = Annotated[Mapping[str, Any], AfterValidator(_filter)]
Url = Annotated[str, AfterValidator(_url)]
Extension = Annotated[str, AfterValidator(_extension)]
BrokerUser = Annotated[str, AfterValidator(_broker_user)]
Secret = Annotated[str, AfterValidator(_secret)]
Whsec = Annotated[str, AfterValidator(_secret), AfterValidator(_whsec)]
Size = Annotated[int, BeforeValidator(size), between(1, MAX_BODY, "bytes")]
Tolerance = Annotated[int, BeforeValidator(_whole_seconds), between(1, 86_400, "s")]
Retention = Annotated[int, BeforeValidator(_retention)]  # seconds
Wait = Annotated[float, BeforeValidator(seconds), between(0.001, MAX_WAIT, "s")]
Retry = Annotated[list[Wait], AfterValidator(_waits), Field(max_length=MAX_TRIES)]
Timeout = Annotated[float, BeforeValidator(seconds), between(0.1, MAX_TIMEOUT, "s")]
InFlight = Annotated[int, between(1, 1000, "requests")]


class Spec(BaseModel):
    """A mapping of known keys. Values are not converted between types, and errors never show them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def said(self, *names: str) -> dict[str, Any]:
        """The values of those `names` that the file sets; absent and null ones are left out."""
        said = {name: getattr(self, name) for name in names if name in self.model_fields_set}
        return {name: value for name, value in said.items() if value is not None}
