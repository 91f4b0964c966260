"""The transports. A new one is a file with a `TRANSPORT`, a line here, and a sender (`workers.transports.registry`)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from schemas.config import amqp_target, http_target, smtp_target
from schemas.config.transport import Transport

TRANSPORTS: Final[Mapping[str, Transport]] = MappingProxyType(
    {each.name: each for each in (http_target.TRANSPORT, amqp_target.TRANSPORT, smtp_target.TRANSPORT)}
)
