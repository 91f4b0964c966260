"""Attributes of spans that deal with RabbitMQ, by OpenTelemetry's conventions for messaging."""

from typing import Final

PUBLISH: Final = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send",
}
PROCESS: Final = {
    "messaging.system": "rabbitmq",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
}
