"""The events that benchmarks send: 571-byte JSON bodies on 1,000 subjects."""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

BODY_BYTES = 571
SUBJECTS = 1000
TYPES = 20

CONFIG = """
tenants: [{{name: bench}}]
sources: [{{tenant: bench, name: orders, kind: amqp}}]
endpoints:
  - {{tenant: bench, name: sink, url: "{url}", secrets: ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], max_in_flight: 100}}
"""


def body(number: int) -> bytes:
    """A JSON body of exactly 571 bytes."""
    document = {"order": number, "amount": "12.50", "currency": "EUR", "note": ""}
    document["note"] = "x" * (BODY_BYTES - len(json.dumps(document)))
    return json.dumps(document).encode()


def headers(number: int, run: str) -> dict[str, str]:
    """CloudEvents attributes of one event, in AMQP's binary mode; no two runs share an id."""
    return {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": f"{run}-{number}",
        "cloudEvents:source": "bench",
        "cloudEvents:type": f"order.{number % TYPES}",
        "cloudEvents:subject": f"order-{number % SUBJECTS}",
        "cloudEvents:time": datetime.now(UTC).isoformat(),
    }


def new_run() -> str:
    """A unique name for a run."""
    return os.urandom(4).hex()


def events(count: int) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    """`count` events of a new run: body and headers."""
    run = new_run()
    for number in range(count):
        yield body(number), headers(number, run)
