"""The kinds of sources that come over HTTP. A new one is a file with a `KIND`, which is imported and named in `KINDS` here."""

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

#: Published to the broker by whoever may write there; nothing comes over HTTP.
AMQP: Final = "amqp"

#: Every kind that a source may have.
NAMES: Final = (*KINDS, AMQP)


def check(source: Source) -> list[str]:
    """What is wrong with a source's kind, secrets and options; one line each, without secrets. Empty when all is well."""
    if source.kind == AMQP:
        return ["kind amqp takes no secrets: the broker's users are what protects it"] if source.secrets else []
    if source.users:
        return ["users is for kind amqp: they are the broker's logins"]
    kind = KINDS.get(source.kind)
    return kind.check(source) if kind else [f"unknown kind {source.kind!r}; known are {', '.join(NAMES)}"]
