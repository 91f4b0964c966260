"""The kinds of HTTP sources. To add one, write a file with a `KIND`, import it here and name it in `KINDS`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pipeline.sources import bearer, github, hmac_body, shopify, slack, standard_webhooks, stripe, twilio, unsigned
from pipeline.sources.kind import PATH, Headers, Kind, Reply, Unsignable, Unverified
from schemas.source import Source

__all__ = ["AMQP", "KINDS", "NAMES", "PATH", "Headers", "Kind", "Reply", "Unsignable", "Unverified", "check"]

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "standard-webhooks": standard_webhooks.KIND,
        "github": github.KIND,
        "stripe": stripe.KIND,
        "slack": slack.KIND,
        "shopify": shopify.KIND,
        "twilio": twilio.KIND,
        "hmac": hmac_body.KIND,
        "token": bearer.KIND,
        "none": unsigned.KIND,
    }
)

#: Published directly to the broker, by any user with write permission; nothing arrives over HTTP.
AMQP: Final = "amqp"

#: Every kind that a source may have.
NAMES: Final = (*KINDS, AMQP)


def check(source: Source) -> list[str]:
    """The problems of a source's kind, secrets and options, one line each, without secrets. Empty if there are none."""
    if source.kind == AMQP:
        return ["kind amqp takes no secrets: the broker's users are what protects it"] if source.secrets else []
    if source.users:
        return ["users is for kind amqp: they are the broker's logins"]
    kind = KINDS.get(source.kind)
    return kind.check(source) if kind else [f"unknown kind {source.kind!r:.80}; known are {', '.join(NAMES)}"]
