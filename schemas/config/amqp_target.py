"""Endpoints over AMQP: an exchange of Waxseal's own broker."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator

from schemas.config.transport import Transport
from schemas.config.values import Spec

DEFAULT_EXCHANGE: Final = "waxseal.events"
DEFAULT_ROUTING_KEY: Final = "{tenant}.{type}"

_EXCHANGE: Final = re.compile(r"[\w.:-]{1,127}", re.ASCII)
_PLACE: Final = re.compile(r"\{([^{}]*)\}")
_PLACES: Final = ("tenant", "type", "source", "subject")


@dataclass(frozen=True, slots=True)
class AmqpTarget:
    """Where an `amqp` endpoint publishes; `{tenant}`, `{type}`, `{source}` and `{subject}` in the routing key are filled in."""

    exchange: str = DEFAULT_EXCHANGE
    routing_key: str = DEFAULT_ROUTING_KEY


def _exchange(name: str) -> str:
    if not _EXCHANGE.fullmatch(name):
        raise ValueError("must be the name of an exchange: letters, digits, and - _ . :")
    if (name.startswith("waxseal.") and name != DEFAULT_EXCHANGE) or name.startswith("amq.rabbitmq."):
        raise ValueError(f"must not be published to: use {DEFAULT_EXCHANGE} or an exchange of your own")
    return name


def _routing_key(key: str) -> str:
    unknown = [place for place in _PLACE.findall(key) if place not in _PLACES]
    if unknown or len(key.encode()) > 255:
        raise ValueError("must have at most 255 bytes, and in braces only " + ", ".join(_PLACES))
    return key


class AmqpSpec(Spec):
    """An exchange of the broker."""

    exchange: Annotated[str, AfterValidator(_exchange)] = DEFAULT_EXCHANGE
    routing_key: Annotated[str, AfterValidator(_routing_key)] = DEFAULT_ROUTING_KEY

    def target(self) -> AmqpTarget:
        """The configured target."""
        return AmqpTarget(self.exchange, self.routing_key)


TRANSPORT: Final = Transport("amqp", "amqp", AmqpSpec, AmqpTarget, useless=("secrets", "headers", "client_cert", "ca"))
