"""The exchanges, queues and bindings as RabbitMQ imports them: for a backup, and `rabbitmqctl import_definitions`."""

from collections.abc import Mapping, Sequence
from typing import Any

from workers.amqp.topology import Declaration


def definitions(topology: Sequence[Declaration], vhost: str = "/") -> dict[str, list[dict[str, Any]]]:
    """Describe them in RabbitMQ's form."""
    made: dict[str, list[dict[str, Any]]] = {"exchanges": [], "queues": [], "bindings": []}
    for method, said in topology:
        kind, _, verb = method.partition("_")
        group = "bindings" if verb == "bind" else f"{kind}s"
        described = _binding(kind, said) if verb == "bind" else _declared(kind, said)
        made[group].append({"vhost": vhost, **described})
    return made


def _declared(kind: str, said: Mapping[str, Any]) -> dict[str, Any]:
    common = {"name": said[kind], "durable": said["durable"], "auto_delete": False, "arguments": said.get("arguments", {})}
    if kind == "queue":
        return common
    return {**common, "type": said["exchange_type"], "internal": said.get("internal", False)}


def _binding(kind: str, said: Mapping[str, Any]) -> dict[str, Any]:
    source, destination = (said["exchange"], said["queue"]) if kind == "queue" else (said["source"], said["destination"])
    key = said.get("routing_key", "#")
    return {"source": source, "destination": destination, "destination_type": kind, "routing_key": key, "arguments": {}}
