"""An endpoint's row: which values are stored in the clear, which encrypted, and how both are read again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from schemas.config.transport import SEALED_TERMS
from schemas.config.transports import TRANSPORTS
from schemas.endpoint import DEFAULT_MAX_IN_FLIGHT, DEFAULT_RETRY, DEFAULT_TIMEOUT, Endpoint

#: The setting that holds all secret values, encrypted, as text.
SEALED = "sealed"

Decrypt = Callable[[bytes], bytes]
Encrypt = Callable[[bytes], bytes]


def settings_of(endpoint: Endpoint, terms: Mapping[str, Any], encrypt: Encrypt) -> dict[str, Any]:
    """The settings to store: `terms`, which are those that the file sets; the target; and the secret values under `SEALED`."""
    settings = dict(terms)
    secret = {name: value for name in SEALED_TERMS if (value := getattr(endpoint, name))}
    target = TRANSPORTS[endpoint.transport].target
    if target is not None:
        stored: dict[str, Any] = asdict(endpoint.target)  # type: ignore[call-overload]
        secret |= {name: stored.pop(name) for name in _secrets_of(target)}
        settings[endpoint.transport] = stored
    if any(secret.values()):
        settings[SEALED] = encrypt(json.dumps(secret).encode()).decode()
    return settings


def endpoint_of(row: Any, decrypt: Decrypt) -> Endpoint:
    """The endpoint in a row, with its secrets decrypted."""
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
        target=_target(row["transport"], settings, secret),
        rate_limit=settings.get("rate_limit"),
        ordered=settings.get("ordered", False),
        max_age=settings.get("max_age"),
        body=settings.get("body", "raw"),
        **{name: secret[name] for name in SEALED_TERMS if name in secret},
    )


def _target(transport: str, settings: Mapping[str, Any], secret: Mapping[str, Any]) -> object:
    """The target. None also for a transport that this version does not know: such a row must not prevent loading the others."""
    known = TRANSPORTS.get(transport)
    if known is None or known.target is None or transport not in settings:
        return None
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in settings[transport].items()}
    return known.target(**plain, **{name: secret.get(name) for name in _secrets_of(known.target)})


def _secrets_of(target: type) -> list[str]:
    return [each.name for each in fields(target) if not each.repr]
