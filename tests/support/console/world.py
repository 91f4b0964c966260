"""A system in which everything that the console shows is there."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ops.admin import endpoints, mailboxes
from ops.admin.bulk import Named
from ops.admin.jobs import jobs
from ops.admin.search.indexing import Indexer
from ops.config.apply import apply_config
from ops.config.read_file import read_config
from ops.runtime.db import make_engine, transaction
from ops.runtime.places import Place
from ops.settings import Settings
from pipeline.append import append
from pipeline.deliver import judge
from pipeline.settle import Tried, settle
from pipeline.store.dead_letters import dead_letters
from pipeline.store.deliveries import attempt_partitions, deliveries
from pipeline.store.log import checkpoints
from schemas.access import Actor
from schemas.dead_letter import DeadLetter
from schemas.delivery import Receipt
from schemas.endpoint import Endpoint
from support.deliveries import claimed
from support.ledger.events import event_of
from workers.sealer.board import Board
from workers.sealer.sealing import Sealing
from workers.sequencer.worker import Sequencer

CONFIGURATION = """
tenants: [{name: acme}, {name: zoo}]
sources:
  - {tenant: acme, name: shop, kind: token, secrets: [sesame]}
  - {tenant: acme, name: orders, kind: amqp}
  - {tenant: zoo, name: gate, kind: amqp}
endpoints:
  - {tenant: acme, name: billing, url: "https://billing.example/hooks", filter: {prefix: {type: "order."}}}
  - {tenant: acme, name: stock, url: "https://stock.example/hooks", ordered: true}
  - {tenant: zoo, name: keeper, url: "https://keeper.example/hooks"}
mailboxes:
  - {tenant: acme, name: support, kind: imap, host: imap.example, username: u@acme.example, password: secret, folders: [INBOX]}
"""
ANNA = Actor("anna", reason="a reason")
HOSTILE = '<script>alert("x")</script> \u202e %_\\ \U0001f512'


def settings_of(database: Any, folder: Path, **more: Any) -> Settings:
    """The settings of a console on the database."""
    return Settings(
        **{
            "database_url": database.console_url,
            "keys": database.key,
            "blobs": str(folder / "blobs"),
            "log_files": str(folder / "published"),
            "log_origin": "ledger.example",
            "console_port": 0,
            **more,
        }
    )


def fill(database: Any, folder: Path) -> None:
    """Fills an empty database: two tenants, events, deliveries in every state, dead letters, acts, jobs, a sealed log."""
    (folder / "waxseal.yaml").write_text(CONFIGURATION)
    apply_config(read_config(folder / "waxseal.yaml", {}), Settings(database_url=database.url, keys=database.key))
    ids = dict(database.rows("SELECT name, id FROM endpoint"))
    writer, console = make_engine(database.worker_url), make_engine(database.console_url)
    now = datetime.now(UTC)
    _record(writer, database, ids, now - timedelta(minutes=30))
    _settle(writer, ids)
    _bury(writer, ids, now)
    endpoints.disable(console, Named("acme", "stock", ANNA), HOSTILE)
    endpoints.open_breaker(console, Named("acme", "billing", ANNA))
    mailboxes.pause(console, Named("acme", "support", ANNA), "moving")
    _seal(database, folder)
    _index(console)
    jobs.start(console, "verify", "acme", {}, ANNA)
    jobs.cancel(console, jobs.start(console, "export", "acme", {"subject": "order-1"}, ANNA), ANNA)
    jobs.cancel(console, jobs.start(console, "discard", None, {"reason": "nothing-such"}, ANNA), ANNA)
    database.run("INSERT INTO claim (tenant, word, checked_at, missing) VALUES ('acme', 'sealed', now(), 'an anchor')")
    for engine in (writer, console):
        engine.dispose()


def _record(writer: Any, database: Any, ids: dict[str, int], at: datetime) -> None:
    keys = {name: database.vault.decrypt(key) for name, key in database.rows("SELECT name, fingerprint_key FROM tenant")}
    for tenant, names, count in (("acme", ("billing", "stock"), 24), ("zoo", ("keeper",), 3)):
        subscribed = tuple((Endpoint(ids[name], tenant, name, "https://x.example/"), lambda _: True) for name in names)
        made = [
            event_of(
                keys[tenant], tenant, f"order-{n % 5}" if n else HOSTILE, f"evt-{n}", b'{"n": %d}' % n, type=f"order.{n % 3}"
            )
            for n in range(count)
        ]
        for n, each in enumerate(made):
            with transaction(writer) as conn:
                append(conn, [each], {tenant: subscribed}, at + timedelta(seconds=n))


def _settle(writer: Any, ids: dict[str, int]) -> None:
    """Half of those to billing are delivered, and half are dead."""
    lease, claims = claimed(writer, 24)
    now = datetime.now(UTC)
    with transaction(writer) as conn:
        attempt_partitions.ensure(conn, now.date(), 1)
        loaded = deliveries.load_leased(conn, [(claim.id, lease) for claim in claims]).deliveries
        tried = []
        for n, each in enumerate(loaded):
            fails = Receipt(now, 0.25, status=500, error="status", detail="500", response=HOSTILE.encode())
            receipt = fails if n % 2 else Receipt(now, 0.1, status=200)
            terms = Endpoint(each.endpoint_id, "acme", "billing", "https://x.example/", retry=())
            tried.append(Tried(each, judge(each, terms, receipt, now, 0.0)))
        settle(conn, tried, now)


def _bury(writer: Any, ids: dict[str, int], now: datetime) -> None:
    letters = [
        DeadLetter("admit", "missing_id", HOSTILE, "acme", "shop", headers={"x": HOSTILE}, body=HOSTILE.encode()),
        DeadLetter("admit", "missing_id", "an id is needed", "acme", "shop", body=b"\xff\x00"),
        DeadLetter("admit", "unknown_tenant", "nobody", "nobody", "shop", body=b"3"),
        DeadLetter("admit", "malformed", "what is it", routing_key="what", body=b"4"),
        DeadLetter("append", "poison", "cannot be stored", "zoo", "gate", error="22021", body=b"5"),
        DeadLetter("actor", "poison", "it fell over", "acme", endpoint_id=ids["billing"]),
    ]
    with transaction(writer) as conn:
        for n, letter in enumerate(letters):
            dead_letters.bury(conn, [letter], now - timedelta(minutes=6 - n))


def _seal(database: Any, folder: Path) -> None:
    engine = make_engine(database.sealer_url)
    sequencer = Sequencer(engine)
    while sequencer.turn() == 0.0:
        pass
    with transaction(engine) as conn:
        log = checkpoints.open_log(conn, "acme")
    assert log is not None
    sealing = Sealing(engine, Place(str(folder / "published")), "ledger.example", database.vault, Board())
    sealing.seal(log)
    engine.dispose()


def _index(console: Any) -> None:
    indexer = Indexer(console)
    while (turn := indexer.turn()) is not None and (turn.more or turn.behind):
        pass
