"""The sessions of the kinds in `schemas.config.mailbox_kinds`. To add one, write a file with a `KIND`, and a line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from workers.mail.api import gmail, graph
from workers.mail.imap import imap_mailbox
from workers.mail.mailbox_session import MailKind

KINDS: Final[Mapping[str, MailKind]] = MappingProxyType({"imap": imap_mailbox.KIND, "gmail": gmail.KIND, "graph": graph.KIND})
