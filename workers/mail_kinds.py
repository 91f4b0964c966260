"""The kinds of mailboxes. A new one is a file with a `KIND`, and a line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from workers import mail_gmail, mail_graph, mail_imap
from workers.mail_source import MailKind

KINDS: Final[Mapping[str, MailKind]] = MappingProxyType(
    {"imap": mail_imap.KIND, "gmail": mail_gmail.KIND, "graph": mail_graph.KIND}
)
