"""A mailbox behind an API, what is kept of a mailbox without the database, and an intake without the broker."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ops.runtime.db import make_engine, transaction
from pipeline.mail.event_attributes import read_attributes
from pipeline.mail.settle_pull import Outcome
from pipeline.store.mail import mailboxes
from pipeline.store.mail.items import generation
from schemas.mailbox import Cursor, Lane, Mailbox, MailItem, OAuth, Print, RawMail
from support.mail.api import Fake
from support.mail.gmail import Gmail
from support.mail.graph import Graph
from workers.mail.mailbox_session import Away, MailboxSession, PullBounds, Pulled
from workers.mail.pull.mailbox_kinds import KINDS
from workers.mail.pull.publish import MailIntake, Untaken, described
from workers.mail.pull.puller import Puller as MailboxPuller

MIB = 1024 * 1024


def mailbox_of(fake: Gmail | Graph, id: int = 1, name: str = "support", **terms: Any) -> Mailbox:
    api, folder = (fake.url, "all") if isinstance(fake, Gmail) else (f"{fake.url}/v1.0", "inbox")
    oauth = OAuth(fake.token_url, "app", "refresh-0", "shh")
    return Mailbox(id, "acme", name, fake.kind, "u@x.org", api_url=api, oauth=oauth, **{"folders": (folder,), **terms})


def added(database: Any, mailbox: Mailbox) -> Mailbox:
    """Configures the mailbox in the database; returns it with its id there."""
    if not database.rows("SELECT FROM tenant"):
        database.add_tenant()
    database.add_source(mailbox.name, mailbox.kind)
    engine = make_engine(database.url, pool_size=1)
    with transaction(engine) as conn:
        id = mailboxes.put(conn, mailbox, database.vault.encrypt, datetime.now(UTC), anew=True)
    engine.dispose()
    return replace(mailbox, id=id)


class Kept:
    """The mails that are held of an IMAP mailbox, as Postgres would hold them."""

    def __init__(self) -> None:
        self.mails: dict[str, tuple[str, Print]] = {}
        self.fetched: list[RawMail] = []

    def keys(self, source_keys: Sequence[str]) -> set[str]:
        return {key for key in source_keys if key in self.mails}

    def alike(self, folder: str, fresh: Mapping[str, Print]) -> dict[str, str]:
        old = {(of, held): key for key, (of, held) in self.mails.items() if not key.startswith(generation(next(iter(fresh))))}
        return {key: old[folder, each] for key, each in fresh.items() if (folder, each) in old}

    def older(self, folder: str, source_key: str) -> bool:
        return any(of == folder and not key.startswith(generation(source_key)) for key, (of, _) in self.mails.items())

    def take(self, pulled: Pulled) -> None:
        for old, new in pulled.renamed.items():
            self.mails[new] = self.mails.pop(old)
        for each in pulled.mails:
            id_ = read_attributes(each.raw, "thread", "", "").message_id or ""
            assert each.source_key not in self.mails
            self.mails[each.source_key] = each.folder, Print(id_, len(each.raw), each.internal_date)
        self.fetched += pulled.mails

    def subjects(self) -> list[int]:
        return [int(read_attributes(each.raw, "header:Subject", "", "").subject.split()[-1]) for each in self.fetched]


class KeepingIntake(MailIntake):
    """An intake that keeps in order what the broker would have durably."""

    def __init__(self) -> None:
        self.mails: list[RawMail] = []
        self.away = False
        self._names: list[str] = []

    def accept(self, mailbox: Mailbox, mails: Sequence[RawMail]) -> list[MailItem]:
        if self.away:
            raise Untaken("the broker is away")
        self.mails += mails
        self._names += [mailbox.name] * len(mails)
        return [described(mailbox, each)[0] for each in mails]

    def raws(self, name: str) -> list[bytes]:
        """The mails of one mailbox."""
        return [each.raw for of, each in zip(self._names, self.mails, strict=True) if of == name]

    def numbers(self) -> list[int]:
        return [int(each.raw.split(b"Subject: number ")[1].split(b"\r\n")[0]) for each in self.mails]

    def clear(self) -> None:
        self.mails.clear()
        self._names.clear()


def drain(puller: MailboxPuller, id_: int) -> list[Outcome]:
    """Pulls a mailbox for as long as there is more."""
    outcomes = [puller.pull(id_)]
    while outcomes[-1] == "more":
        outcomes.append(puller.pull(id_, going_on=True))
    return outcomes


@dataclass
class Asking:
    """Gives tokens that the fake accepts, and counts requests for fresh ones."""

    fake: Fake
    fresh: int = 0
    answers: list[str] = field(default_factory=list)

    def __call__(self, *, fresh: bool = False) -> str:
        self.fresh += fresh
        token = self.answers.pop(0) if self.answers else f"given-{self.fresh}"
        if token.startswith("given"):
            self.fake.tokens.access.add(token)
        return token


@dataclass
class Puller:
    """Pulls as the worker does: stores the mails first, then the cursor."""

    session: MailboxSession
    folder: str
    mails: dict[str, RawMail] = field(default_factory=dict)
    kept: list[MailItem] = field(default_factory=list)
    cursors: dict[Lane, Cursor] = field(default_factory=dict)
    pulls: list[Pulled] = field(default_factory=list)
    total: int | None = None

    def keys(self, source_keys: Sequence[str]) -> AbstractSet[str]:
        kept = {item.source_key for item in self.kept}
        return {key for key in source_keys if key in self.mails or key in kept}

    def alike(self, folder: str, fresh: Mapping[str, Print]) -> Mapping[str, str]:
        return {}

    def begin(self) -> None:
        begun = self.session.begin(self.folder)
        assert begun.backfill is not None
        self.cursors, self.total = {"new": begun.new, "backfill": begun.backfill}, begun.total

    def pull(self, lane: Lane, bounds: PullBounds | None = None, *, killed: bool = False) -> Pulled:
        pulled = self.session.pull(self.folder, lane, self.cursors[lane], bounds or PullBounds(), self)
        for mail in pulled.mails:
            assert killed or mail.source_key not in self.mails, "fetched twice"
            self.mails[mail.source_key] = mail
        self.kept += pulled.kept
        self.pulls.append(pulled)
        if not killed:
            self.cursors[lane] = pulled.cursor
        return pulled

    def drain(self, lane: Lane, **bounds: int) -> list[RawMail]:
        """Pulls until the lane has no more; returns its mails in the order in which they arrived."""
        came: list[RawMail] = []
        for _ in range(200):
            pulled = self.pull(lane, PullBounds(**bounds))
            came += pulled.mails
            if not pulled.more:
                return came
        raise AssertionError("it does not end")

    def drain_until_away(self, lane: Lane) -> None:
        with pytest.raises(Away, match="another host"):
            self.drain(lane)

    @property
    def raws(self) -> set[bytes]:
        return {mail.raw for mail in self.mails.values()}


@contextmanager
def opened(fake: Gmail | Graph, token: Any = None, **terms: Any) -> Iterator[Puller]:
    """A puller in an open session."""
    mailbox = mailbox_of(fake, **terms)
    session = KINDS[mailbox.kind].open(mailbox, token or Asking(fake))
    try:
        yield Puller(session, mailbox.folders[0])
    finally:
        session.close()


def mail(n: int, size: int = 0) -> bytes:
    return b"From: a@x.org\r\nMessage-ID: <%d@x.org>\r\nSubject: %d\r\n\r\n" % (n, n) + b"x" * size


def at(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def arrive(fake: Gmail | Graph, n: int) -> str:
    """Adds a mail that arrives now; returns its id."""
    now = datetime.now(UTC)
    return fake.put(mail(n), at=at(now)) if isinstance(fake, Gmail) else fake.put(mail(n), at=now)
