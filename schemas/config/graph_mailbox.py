"""Mailboxes of Microsoft 365, over the Graph API."""

from typing import Final

from schemas.config.mailbox_kind import MailboxKind, of_an_api

_SCOPE: Final = "https://graph.microsoft.com/Mail.Read offline_access"

KIND: Final = MailboxKind("graph", ("inbox",), of_an_api, provider="microsoft", scope=_SCOPE)
