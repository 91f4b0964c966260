"""An endpoint in the configuration file: where it is, and under which terms."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, create_model, model_validator

from schemas.config.transport import Transport
from schemas.config.transports import TRANSPORTS
from schemas.config.values import Filter, InFlight, Retry, Secret, Slug, Spec, Timeout, Whsec, between, checks
from schemas.endpoint import Body, Endpoint
from schemas.units import per_second, seconds

MAX_AGE: Final = 366 * 86_400.0  # seconds
MAX_RATE: Final = 100_000.0  # deliveries per second
MAX_HEADERS: Final = 20

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")
#: Headers that Waxseal sets, and hop-by-hop ones: an endpoint may not configure these, nor any that begins with `_OURS_BEGIN`.
_OURS: Final = frozenset(
    {"content-type", "content-length", "host", "user-agent", "traceparent", "date", "connection", "keep-alive", "te"}
    | {"transfer-encoding", "trailer", "upgrade", "expect", "proxy-connection", "proxy-authorization"}
)
_OURS_BEGIN: Final = ("webhook-", "ce-")


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


Rate = Annotated[float, BeforeValidator(per_second), between(1 / 86_400, MAX_RATE, "per second")]
Age = Annotated[float, BeforeValidator(seconds), between(1, MAX_AGE, "s")]
HeaderName = Annotated[str, AfterValidator(_header)]
HeaderValue = Annotated[Secret, AfterValidator(_header_value)]


class _Named(Spec):
    tenant: Slug
    name: Slug


if TYPE_CHECKING:
    _Reached = _Named
else:
    _Reached = create_model("_Reached", __base__=_Named, **{each.key: (each.form | None, None) for each in TRANSPORTS.values()})


class EndpointSpec(_Reached):
    """An endpoint with its subscription, its secrets in the clear. Without secrets, the first apply makes one and keeps it.

    It has one key for each of `transports`; exactly one of these must be set.
    """

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
        if sum(getattr(self, each.key) is not None for each in TRANSPORTS.values()) != 1:
            *keys, last = (each.key for each in TRANSPORTS.values())
            raise ValueError(f"needs {', '.join(keys)} or {last}, and one of them only")
        for name in self.reached_by.useless:
            if getattr(self, name):
                raise ValueError(f"{name} is of no use to an endpoint with {self.transport}")
        return self

    @property
    def reached_by(self) -> Transport:
        """The definition of its transport."""
        return next(each for each in TRANSPORTS.values() if getattr(self, each.key) is not None)

    @property
    def transport(self) -> str:
        """The name of its transport."""
        return self.reached_by.name

    @property
    def place(self) -> Any:
        """Its destination, in the form of its transport."""
        return getattr(self, self.reached_by.key)

    def terms(self) -> dict[str, Any]:
        """The terms that the file sets; defaults are left out."""
        return self.said("retry", "max_age", "timeout", "max_in_flight", "rate_limit", "ordered", "body")

    def endpoint(self, id_: int, secrets: tuple[str, ...]) -> Endpoint:
        """The configured endpoint."""
        terms: dict[str, Any] = {name: tuple(value) if name == "retry" else value for name, value in self.terms().items()}
        has_url = self.reached_by.target is None
        return Endpoint(
            id_,
            self.tenant,
            self.name,
            self.place if has_url else "",
            secrets,
            self.filter,
            transport=self.transport,
            target=None if has_url else self.place.target(),
            headers=self.headers,
            client_cert=self.client_cert,
            ca=self.ca,
            **terms,
        )
