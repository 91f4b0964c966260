"""A source: where a tenant's messages come from, and how to read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_MAX_BODY = 1024 * 1024  # bytes
DEFAULT_TOLERANCE = 300  # seconds, as in every Standard Webhooks library


@dataclass(frozen=True, slots=True)
class Source:
    """A configured source. `secrets` are in the clear here and never in a repr.

    `id`, `type`, `subject`, `time` and the values of `extensions` are rules: a JSON pointer (RFC 6901) into the body,
    `header:NAME`, `form:NAME` or `digest:body`; None leaves it to the kind. `options` are the kind's own settings, such as the
    header of an `hmac`. `rate_limit` is in messages a second over all ingress processes together; None: unlimited. `users` are
    the broker logins that may publish for a source of kind `amqp`; empty: all. `retention` is in seconds, after which the
    content of its events is erased; None: that of the tenant.
    """

    tenant: str
    name: str
    kind: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    id: str | None = None
    type: str | None = None
    subject: str | None = None
    time: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)
    max_body: int = DEFAULT_MAX_BODY
    tolerance: int = DEFAULT_TOLERANCE
    rate_limit: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    users: tuple[str, ...] = ()
    retention: int | None = None

    @property
    def has_rules(self) -> bool:
        """Whether any rule overrides the attributes that a message states itself."""
        return bool(self.extensions or self.id or self.type or self.subject or self.time)
