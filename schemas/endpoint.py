"""An endpoint: where a tenant's events go, and under which terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EndpointState = Literal["active", "disabled", "removed"]

MINUTE, HOUR = 60, 3600

#: Seconds between tries: the schedule that Standard Webhooks 1.0 advises.
DEFAULT_RETRY = (5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
DEFAULT_TIMEOUT = 15.0  # seconds, over the whole exchange
DEFAULT_MAX_IN_FLIGHT = 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A configured endpoint with its subscription. `secrets` are in the clear here and never in a repr.

    `filter` is one CloudEvents filter expression, None for every event of the tenant. `retry` holds the seconds between
    tries, so there are len(retry) + 1 tries.
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
