"""A source: where messages of a tenant come from, and how to read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_MAX_BODY = 1024 * 1024  # bytes
DEFAULT_TOLERANCE = 300  # seconds, as every Standard Webhooks library has it


@dataclass(frozen=True, slots=True)
class Source:
    """A configured source. `secrets` are in the clear here and never in a repr.

    `id`, `type`, `subject`, `time` and the values of `extensions` are rules: a JSON pointer (RFC 6901) into the body,
    `header:NAME`, `form:NAME` or `digest:body`; None leaves it to the kind. `options` are the kind's own settings (the header
    of an `hmac`, say). `rate_limit` is the messages a second that all ingress processes take together; None: as many as come.
    `users` are the broker's logins that may publish for a source of kind `amqp`; empty: all.
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

    @property
    def has_rules(self) -> bool:
        """Whether any rule overrules what a message says of itself."""
        return bool(self.extensions or self.id or self.type or self.subject or self.time)
