"""An endpoint: where a tenant's events are sent, and on which terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EndpointState = Literal["active", "disabled", "removed"]

MINUTE, HOUR = 60, 3600

#: Seconds between tries: the schedule that Standard Webhooks 1.0 recommends.
DEFAULT_RETRY = (5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
DEFAULT_TIMEOUT = 15.0  # seconds, for the whole exchange
DEFAULT_MAX_IN_FLIGHT = 20

#: How a mail is sent: its raw bytes, or the document parsed from them. All other events are sent as received.
Body = Literal["raw", "document"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A configured endpoint with its subscription. `secrets` are in the clear here and never in a repr.

    `transport` names one of `schemas.config.transports`. `url` is empty unless that is http; for any other transport, `target`
    holds the destination in the transport's own form, or None where this version does not know the transport. `filter` is one
    CloudEvents filter expression; None matches every event of the tenant. `retry` holds the seconds between tries, so there
    are len(retry) + 1 tries.
    """

    id: int
    tenant: str
    name: str
    url: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    filter: Mapping[str, Any] | None = None
    retry: tuple[float, ...] = DEFAULT_RETRY
    timeout: float = DEFAULT_TIMEOUT
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    state: EndpointState = "active"
    transport: str = "http"
    target: object = None
    rate_limit: float | None = None  # deliveries per second
    ordered: bool = False  # one delivery at a time for each subject, in the order of its chain
    body: Body = "raw"
    max_age: float | None = None  # seconds after which a delivery is no longer tried, whatever its schedule says
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # sent with every request; may hold credentials
    client_cert: str | None = field(default=None, repr=False)  # PEM: certificate chain and private key, for mTLS
    ca: str | None = field(default=None, repr=False)  # PEM: the authorities to trust instead of the system's
