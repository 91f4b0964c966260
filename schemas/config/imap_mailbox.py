"""Mailboxes over IMAP."""

from typing import Final

from schemas.config.mailbox_kind import MailboxKind, Said

PORTS: Final = {True: 993, False: 143}


def _problems(spec: Said) -> list[str]:
    problems = []
    if spec.host is None:
        problems.append("kind imap needs host")
    if (spec.password is None) == (spec.oauth is None):
        problems.append("needs password or oauth, and one of them only")
    if spec.api_url is not None:
        problems.append("api_url is of no use to kind imap")
    if spec.tls and spec.port == PORTS[False]:
        problems.append("STARTTLS is not offered: use port 993, or say tls: false where the network is trusted")
    if not spec.tls and spec.ca is not None:
        problems.append("ca is of no use without tls")
    return problems


KIND: Final = MailboxKind(
    "imap", ("INBOX",), _problems, PORTS, scope="https://outlook.office.com/IMAP.AccessAsUser.All offline_access"
)
