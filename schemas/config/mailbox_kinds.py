"""The kinds of mailboxes. A new one is a file with a `KIND`, a line here, and a session (`workers.mail.pull.mailbox_kinds`)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from schemas.config import gmail_mailbox, graph_mailbox, imap_mailbox
from schemas.config.mailbox_kind import MailboxKind

MAILBOX_KINDS: Final[Mapping[str, MailboxKind]] = MappingProxyType(
    {each.name: each for each in (imap_mailbox.KIND, gmail_mailbox.KIND, graph_mailbox.KIND)}
)

#: Their names, which are also kinds of sources.
MAIL_KINDS: Final = tuple(MAILBOX_KINDS)
