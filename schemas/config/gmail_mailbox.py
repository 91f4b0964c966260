"""Mailboxes of Gmail, over its API."""

from typing import Final

from schemas.config.mailbox_kind import MailboxKind, Said, of_an_api
from schemas.mailbox import WHOLE


def _problems(spec: Said) -> list[str]:
    return of_an_api(spec, "folders")


KIND: Final = MailboxKind("gmail", (WHOLE,), _problems, provider="google")
