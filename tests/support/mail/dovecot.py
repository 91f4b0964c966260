"""A private Dovecot for tests, and mailboxes on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ops.bench.mailserver.dovecot import PASSWORD, Dovecot, dovecot, mail
from ops.errors import ServersMissing
from schemas.mailbox import Mailbox, OAuth
from support.waiting import wait_for

__all__ = ["PASSWORD", "Dovecot", "change_validity", "mail", "mailbox_on", "private_dovecot"]


@contextmanager
def private_dovecot(**options: object) -> Iterator[Dovecot]:
    """A server for this test. If Dovecot is not installed, the test fails and is never skipped."""
    try:
        with dovecot(**options) as server:
            yield server
    except ServersMissing as missing:
        pytest.fail(f"{missing} (`make test` does, where apt can)")


def change_validity(server: Dovecot, user: str, folder: str = "INBOX") -> None:
    """Changes UIDVALIDITY, as restoring a backup does: UIDs no longer name the same mails. Waits until nobody is logged in."""
    wait_for(lambda: not server.processes())
    box = server.maildir(user, folder)
    listed = box / "dovecot-uidlist"
    first, _, rest = listed.read_text().partition("\n")
    words = [f"V{int(word[1:]) + 1}" if word.startswith("V") else word for word in first.split()]
    listed.write_text(" ".join(words) + "\n" + rest)
    for index in box.glob("dovecot.index*"):
        index.unlink()


def mailbox_on(server: Dovecot, user: str = "us", **more: object) -> Mailbox:
    """A mailbox on the server, as read from Postgres."""
    told = {"host": "127.0.0.1", "port": server.port, "tls": False, "password": PASSWORD, **more}
    return Mailbox(1, "acme", "support", "imap", user, **told)


def with_oauth(server: Dovecot, user: str = "us") -> Mailbox:
    return mailbox_on(server, user, password=None, oauth=OAuth("http://127.0.0.1:9/", "app", "long"))
