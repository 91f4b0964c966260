import asyncio
from typing import Any

import pytest

from pipeline.store.config.endpoint_row import endpoint_of
from schemas.config.mailbox_kinds import MAIL_KINDS
from schemas.config.transport import SEALED_TERMS
from schemas.config.transports import TRANSPORTS
from schemas.delivery import OURS
from schemas.mailbox import Mailbox
from support.additions import a_kind_of_mailbox, a_kind_of_source, a_transport, run
from workers.mail.mailbox_session import Away
from workers.mail.pull.mailbox_kinds import KINDS
from workers.mail.pull.sessions import open_session
from workers.net.terms import Terms
from workers.transports.registry import SENDERS, Senders


@pytest.mark.parametrize("addition", [a_transport, a_kind_of_source, a_kind_of_mailbox], ids=lambda each: each.__name__)
def test_what_is_added_to_a_registry_is_known_everywhere(addition) -> None:
    run(addition)


def test_what_can_be_configured_can_be_sent_and_pulled() -> None:
    assert list(TRANSPORTS) == list(SENDERS)
    assert list(MAIL_KINDS) == list(KINDS)


def test_secrets_of_one_target_are_not_taken_for_those_of_another() -> None:
    targets = [each.target for each in TRANSPORTS.values() if each.target is not None]
    secrets = [name for target in targets for name, each in target.__dataclass_fields__.items() if not each.repr]

    assert ["password"] == secrets
    assert not set(secrets) & set(SEALED_TERMS)


def test_an_endpoint_of_a_transport_that_a_later_version_has_is_read_and_tried_with_a_clear_reason() -> None:
    row = {"id": 7, "tenant": "acme", "name": "a", "url": None, "secrets": [], "filter": None, "state": "active"}
    endpoint = endpoint_of({**row, "transport": "paper", "settings": {"paper": {"tray": 1}}}, lambda sealed: sealed)
    delivery: Any = None

    async def sent() -> Any:
        return await Senders(Terms("waxseal/test")).send(endpoint, delivery, 1.0)

    receipt = asyncio.run(sent())

    assert ("paper", None) == (endpoint.transport, endpoint.target)
    assert ("transport", None) == (receipt.error, receipt.status)
    assert receipt.error not in OURS  # so that the breaker opens
    assert "this version does not know the transport paper" in receipt.detail


def test_a_mailbox_of_a_kind_that_a_later_version_has_waits() -> None:
    with pytest.raises(Away, match="this version does not know mailboxes of kind pop"):
        open_session(Mailbox(7, "acme", "support", "pop", "us"), None)
