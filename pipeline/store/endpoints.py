"""An endpoint's row: what of it is stored in the clear, what sealed, and how both are read again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from schemas.endpoint import (
    DEFAULT_MAX_IN_FLIGHT,
    DEFAULT_RETRY,
    DEFAULT_TIMEOUT,
    AmqpTarget,
    Endpoint,
    SmtpTarget,
)

#: The setting that holds all that is secret, encrypted, as text.
SEALED = "sealed"

_SECRET = ("headers", "client_cert", "ca")

Decrypt = Callable[[bytes], bytes]
Encrypt = Callable[[bytes], bytes]


def settings_of(endpoint: Endpoint, terms: Mapping[str, Any], encrypt: Encrypt) -> dict[str, Any]:
    """What is stored as settings: `terms`, which are those that were asked for, the target, and what is secret under a key."""
    settings = dict(terms)
    secret = {name: value for name in _SECRET if (value := getattr(endpoint, name))}
    if endpoint.amqp is not None:
        settings["amqp"] = asdict(endpoint.amqp)
    if endpoint.smtp is not None:
        settings["smtp"] = asdict(endpoint.smtp)
        secret["password"] = settings["smtp"].pop("password")
    if any(secret.values()):
        settings[SEALED] = encrypt(json.dumps(secret).encode()).decode()
    return settings


def endpoint_of(row: Any, decrypt: Decrypt) -> Endpoint:
    """The endpoint in a row, its secrets in the clear."""
    settings = row["settings"]
    secret = json.loads(decrypt(settings[SEALED].encode())) if SEALED in settings else {}
    return Endpoint(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        url=row["url"] or "",
        secrets=tuple(decrypt(each).decode() for each in row["secrets"]),
        filter=row["filter"],
        retry=tuple(settings.get("retry", DEFAULT_RETRY)),
        timeout=settings.get("timeout", DEFAULT_TIMEOUT),
        max_in_flight=settings.get("max_in_flight", DEFAULT_MAX_IN_FLIGHT),
        state=row["state"],
        transport=row["transport"],
        amqp=AmqpTarget(**settings["amqp"]) if "amqp" in settings else None,
        smtp=_smtp(settings["smtp"], secret.get("password")) if "smtp" in settings else None,
        rate_limit=settings.get("rate_limit"),
        ordered=settings.get("ordered", False),
        max_age=settings.get("max_age"),
        body=settings.get("body", "raw"),
        **{name: secret[name] for name in _SECRET if name in secret},
    )


def _smtp(stored: Mapping[str, Any], password: str | None) -> SmtpTarget:
    return SmtpTarget(**{**stored, "to": tuple(stored["to"]), "password": password})
