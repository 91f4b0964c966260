"""Which mails were fetched is forgotten when their mailbox no longer has them; none is fetched again that it still has."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from ops.admin.erasure.keeping import Keeping, count_old, remove_old
from ops.config.apply import apply_file
from ops.runtime.db import make_engine, transaction
from ops.settings import Settings
from pipeline.store.admin import removal
from pipeline.store.mail import items as mail_items
from pipeline.store.mail.items import Position
from schemas.mailbox import Mailbox, MailItem
from support.mail.dovecot import PASSWORD, change_validity
from support.mail.dovecot import mail as imap_mail
from support.mail.mailboxes import drain, mail
from workers.mail.oauth.tokens import Tokens
from workers.mail.pull.publish import described
from workers.mail.pull.puller import Puller
from workers.mail.pull.sessions import Sessions

pytestmark = pytest.mark.usefixtures("loopback")

DAY = timedelta(days=1)
KEPT = Keeping(mail_items=30 * DAY)
MAILBOX = "  - {tenant: acme, username: %s, name: %s, kind: %s, %s}\n"


@pytest.fixture
def eraser(database) -> Iterator[Engine]:
    engine = make_engine(database.eraser_url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture
def apply(database, tmp_path: Path) -> Callable[[str, str, str], int]:
    def run(kind: str, username: str, more: str) -> int:
        text = "tenants: [{name: acme}]\nmailboxes:\n" + MAILBOX % (username, "support", kind, more)
        (tmp_path / "waxseal.yaml").write_text(text)
        apply_file(tmp_path / "waxseal.yaml", Settings(database_url=database.url, keys=database.key))
        return int(database.rows("SELECT id FROM mailbox")[0][0])

    return run


@pytest.fixture
def imap(apply, server, user) -> int:
    return apply("imap", user, f"host: 127.0.0.1, port: {server.port}, tls: false, password: {PASSWORD}")


@pytest.fixture
def puller(database, engine, inbox) -> Iterator[Puller]:
    sessions = Sessions(Tokens(engine, database.vault).of)
    yield Puller(engine, database.vault, sessions, inbox, "me")
    sessions.sweep(everything=True)


def later(database, days: int = 40) -> None:
    """As if what was noted had been noted so many days before; a comparison is due."""
    past = f"- interval '{days} days'"
    database.run(f"UPDATE mail_item SET listed_at = listed_at {past}")
    database.run(f"UPDATE mailbox_cursor SET listing_from = listing_from {past}, compared_from = compared_from {past}")
    database.run(f"UPDATE mailbox SET began_at = began_at {past}, reconciled_at = coalesce(reconciled_at, now()) {past}")


def forgotten(eraser: Engine, kept: Keeping = KEPT) -> int:
    return sum(count for _, count in remove_old(eraser, kept, datetime.now(UTC)))


def keys(database) -> list[str]:
    return [key for (key,) in database.rows("SELECT source_key FROM mail_item ORDER BY 1")]


def uids(database) -> set[str]:
    return {key.split("/")[2] for key in keys(database)}


def test_a_mail_that_the_mailbox_no_longer_has_is_forgotten_and_none_is_fetched_twice(
    imap, puller, server, user, inbox, database, eraser
) -> None:
    for number in range(3):
        server.deliver(user, imap_mail(number))
    drain(puller, imap)
    next(path for path in server.files(user) if imap_mail(1) == path.read_bytes()).unlink()
    later(database)

    assert 0 == forgotten(eraser)  # nobody has compared since
    drain(puller, imap)
    assert (1, 0) == (forgotten(eraser), forgotten(eraser))
    assert {"1", "3"} == uids(database)
    assert 0 == forgotten(eraser, Keeping())
    later(database, 8)
    drain(puller, imap)
    assert (3, {"1", "3"}) == (len(inbox.mails), uids(database))
    for path in server.files(user):
        path.unlink()
    later(database)
    drain(puller, imap)  # it is empty: that is a comparison, too
    assert 2 == forgotten(eraser)


def test_a_mail_of_another_uidvalidity_is_known_by_its_headers_for_as_long_as_it_is_there(
    imap, puller, server, user, inbox, database, eraser
) -> None:
    for number in range(3):
        server.deliver(user, imap_mail(number))
    drain(puller, imap)
    later(database)
    change_validity(server, user)
    drain(puller, imap)

    assert (3, 0) == (len(inbox.mails), forgotten(eraser))
    later(database)
    drain(puller, imap)
    assert (3, 0, 3) == (len(inbox.mails), forgotten(eraser), len(keys(database)))


@pytest.mark.parametrize("kind", ["gmail", "graph"])
def test_a_mail_that_comes_back_to_a_providers_mailbox_has_the_id_that_it_had(
    kind, apply, puller, inbox, database, eraser, gmail, graph
) -> None:
    fake: Any = {"gmail": gmail, "graph": graph}[kind]
    ids = [fake.put(mail(n)) for n in range(3)]
    api = f"{graph.url}/v1.0" if kind == "graph" else gmail.url
    oauth = f"{{token_url: {fake.token_url}, client_id: app, client_secret: shh, refresh_token: refresh-0}}"
    id_ = apply(kind, "u@x.org", f"api_url: {api}, oauth: {oauth}")
    drain(puller, id_)
    away: Mapping[str, Callable[[], Any]] = {
        "gmail": lambda: gmail.label(ids[1], add=("TRASH",)),
        "graph": lambda: graph.move(ids[1], "deleteditems"),
    }
    back: Mapping[str, Callable[[], Any]] = {
        "gmail": lambda: gmail.label(ids[1], remove=("TRASH",)),
        "graph": lambda: graph.move(ids[1], "inbox"),
    }
    away[kind]()
    later(database)
    drain(puller, id_)
    assert (1, 2, 3) == (forgotten(eraser), len(keys(database)), len(inbox.mails))

    back[kind]()
    drain(puller, id_)
    assert (3, 4) == (len(keys(database)), len(inbox.mails))
    events = [described(Mailbox(id_, "acme", "support", kind, "u"), each)[1]["id"] for each in inbox.mails]
    assert 3 == len(set(events))  # the ledger drops it
    assert events.count(events[-1]) == 2


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def held(database, engine: Engine, kind: str = "imap", *names: str) -> int:
    database.add_tenant()
    database.add_source("support", kind)
    database.run("INSERT INTO mailbox (id, settings, credentials) SELECT id, '{}', '' FROM source")
    id_ = int(database.rows("SELECT id FROM mailbox")[0][0])
    with transaction(engine) as conn:
        for key in names:
            folder = key.rsplit("/", 1)[-1] if key.startswith("imap/") else "import"
            mail_items.add(conn, id_, [MailItem(key, folder, None, 1, NOW, f"sha256:{key}")], NOW)
    database.run("UPDATE mail_item SET listed_at = now() - interval '100 days'")
    return id_


def compare(engine: Engine, id_: int, folder: str, *, ago: int = 0, finished: bool = True) -> None:
    then = datetime.now(UTC) - ago * DAY
    with transaction(engine) as conn:
        mail_items.put_position(conn, id_, Position(folder, "backfill", {}, listing_from=then), then, finished=finished)


def test_only_a_whole_comparison_says_that_a_mail_is_gone(database, engine, eraser) -> None:
    id_ = held(database, engine, "imap", "imap/1/1/INBOX", "imap/1/1/Old", "imap/1/1/Never")
    compare(engine, id_, "INBOX", finished=False)
    compare(engine, id_, "Old", ago=90)  # began within two weeks of when the mail was listed
    assert 0 == forgotten(eraser)

    # A process of before this migration moved the cursor, and stamped no mail.
    database.run("UPDATE mailbox_cursor SET moved_at = now() WHERE folder = 'INBOX'")
    with transaction(engine) as conn:
        position = mail_items.positions(conn, id_)["INBOX", "backfill"]
        mail_items.put_position(conn, id_, position, datetime.now(UTC), finished=True)
    assert (None, 0) == (position.listing_from, forgotten(eraser))

    compare(engine, id_, "INBOX", finished=False)
    with transaction(engine) as conn:
        position = mail_items.positions(conn, id_)["INBOX", "backfill"]
        mail_items.put_position(conn, id_, position, datetime.now(UTC), finished=True)
    assert (1, 2) == (forgotten(eraser), len(keys(database)))


def test_what_was_imported_is_forgotten_by_its_age_and_a_folder_named_alike_is_not(database, engine, eraser) -> None:
    held(database, engine, "imap", "import/ab", "imap/1/1/import")

    assert (1, ["imap/1/1/import"]) == (forgotten(eraser), keys(database))


def test_a_mail_that_is_listed_is_stamped_once_a_week_and_waits_for_nobody(database, engine) -> None:
    id_ = held(database, engine, "imap", "imap/1/1/INBOX", "imap/1/2/INBOX", "imap/1/3/INBOX")
    database.run("UPDATE mail_item SET listed_at = now() - interval '6 days' WHERE source_key = 'imap/1/3/INBOX'")
    asked = [*keys(database), "imap/1/4/INBOX"]
    stamped = "SELECT source_key FROM mail_item WHERE listed_at > now() - interval '1 minute'"
    with database.connect() as conn, conn.transaction():
        conn.execute("SELECT FROM mail_item WHERE source_key = 'imap/1/1/INBOX' FOR UPDATE")
        with transaction(engine) as own:
            assert set(keys(database)) == mail_items.listed(own, id_, asked)
    assert [("imap/1/2/INBOX",)] == database.rows(stamped)


def test_a_page_reads_no_more_than_its_own_rows_and_the_oldest_is_known(database, engine, eraser) -> None:
    """A hundred of 10,000 mails; nobody has analysed the table."""
    id_ = held(database, engine)
    compare(engine, id_, "INBOX")
    database.run(
        "INSERT INTO mail_item (mailbox_id, source_key, folder, size, internal_date, event_id, seen_at, listed_at)"
        " SELECT id, 'imap/1/' || n || '/INBOX', 'INBOX', 1, now(), 'x', now(),"
        " now() - CASE WHEN mod(n, 20) = 0 THEN interval '90 days' ELSE interval '1 day' END"
        " FROM mailbox, generate_series(1, 10000) n"
    )
    before = datetime.now(UTC) - 30 * DAY
    [(first,)] = database.rows("SELECT min(listed_at) FROM mail_item")
    with transaction(eraser) as conn:
        assert first == removal.oldest(conn)["mail_items"]
    owner = make_engine(database.url, pool_size=1)
    assert 500 == count_old(owner, "mail_items", before)
    owner.dispose()
    with database.connect() as conn:
        page = "SELECT remove_mail_items(now() - interval '30 days', 100)"
        plan = "\n".join(line for (line,) in conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) {page}"))

    assert int(plan.split("shared hit=")[1].split()[0]) < 2000
    assert 400 == forgotten(eraser)
