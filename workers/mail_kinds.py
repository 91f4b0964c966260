"""How the kinds of mailboxes are read. To add one of `schemas.config.mailbox_kinds`: a file with a `KIND`, and a line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from workers import mail_gmail, mail_graph, mail_imap
from workers.mail_source import MailKind

KINDS: Final[Mapping[str, MailKind]] = MappingProxyType(
    {"imap": mail_imap.KIND, "gmail": mail_gmail.KIND, "graph": mail_graph.KIND}
)
