"""Tries an endpoint once with an event made for that, which is neither recorded nor tried again."""

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import orjson
from sqlalchemy import Engine

from ops.admin.bulk import Named
from ops.admin.configured.endpoint_secrets import in_the_clear
from ops.admin.views import View
from ops.runtime.vault import Vault
from ops.settings import Settings
from schemas.delivery import Delivery, Receipt
from schemas.endpoint import Endpoint
from workers.net.terms import terms_of
from workers.transports.registry import Senders

TYPE: Final = "waxseal.test"
LONGEST: Final = 15.0  # seconds, whatever the endpoint's own timeout is: somebody waits for the page
_NOWHERE: Final = UUID(int=0)  # the chain of an event that is in none


def tried(engine: Engine, settings: Settings, named: Named) -> View:
    """Send one signed test event; gives the attempt as `ops.admin.views` shows one. Raises `OpsError` for no such endpoint."""
    endpoint = in_the_clear(engine, Vault(settings.fernet_keys()), named)
    delivery = _event(endpoint, datetime.now(UTC))
    receipt = asyncio.run(_sent(settings, endpoint, delivery))
    phases = {name: getattr(receipt, name) for name in ("dns", "connect", "tls", "first_byte")}
    taken = receipt.error is None and receipt.status is not None and 200 <= receipt.status < 300
    return {
        "n": 1,
        "id": orjson.loads(delivery.attributes)["id"],
        "outcome": "delivered" if taken or (receipt.error is None and endpoint.transport != "http") else "failed",
        "started_at": receipt.started_at,
        "seconds": receipt.duration,
        "status": receipt.status,
        "error": receipt.error,
        "detail": receipt.detail,
        "address": receipt.address,
        "reused": False,
        "phases": {name: seconds for name, seconds in phases.items() if seconds is not None},
        "response": receipt.response.decode(errors="replace"),
    }


def _event(endpoint: Endpoint, now: datetime) -> Delivery:
    attributes = {
        "specversion": "1.0",
        "id": f"test_{secrets.token_hex(8)}",
        "source": "waxseal",
        "type": TYPE,
        "subject": endpoint.name,
        "time": now.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
    }
    return Delivery(
        id=0,
        endpoint_id=endpoint.id,
        tenant=endpoint.tenant,
        attempts=0,
        chain_id=_NOWHERE,
        seq=0,
        hash=bytes(32),
        prev_hash=None,
        attributes=orjson.dumps(attributes),
        body=orjson.dumps({"test": True, "endpoint": endpoint.name, "at": attributes["time"]}),
        fingerprint=secrets.token_bytes(16),
        created_at=now,
        lease=_NOWHERE,
    )


async def _sent(settings: Settings, endpoint: Endpoint, delivery: Delivery) -> Receipt:
    senders = Senders(terms_of(settings))
    senders.open()
    try:
        return await senders.send(endpoint, delivery, min(endpoint.timeout, LONGEST))
    finally:
        await senders.close()
