"""A chain whose head and entries disagree: its messages are set aside, and those of other chains do not wait."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from ops.runtime.blobs import Blobs
from ops.runtime.db import transaction
from pipeline.store.dead_letters import dead_letters
from schemas.message import Message
from support.waiting import wait_for
from workers.ingest.writer import Writer

SILENT = "ALTER TABLE entry DISABLE TRIGGER append_only; {}; ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only"
FREELY = "ALTER TABLE chain DISABLE TRIGGER forward_only; {}; ALTER TABLE chain ENABLE ALWAYS TRIGGER forward_only"
OF_CHAIN = "chain_id = (SELECT chain_id FROM chain WHERE subject = 'damaged') AND seq = 2"

#: What a superuser, a bug or a partly restored backup may do to the chain of three entries.
DAMAGES = {
    "its head moved back": "UPDATE chain SET seq = 1, hash = (SELECT hash FROM entry WHERE entry.chain_id = chain.chain_id"
    " AND entry.seq = 1) WHERE subject = 'damaged'",
    "its head forgot everything": "UPDATE chain SET seq = -1, hash = NULL WHERE subject = 'damaged'",
    "its head moved forward": "UPDATE chain SET seq = 7 WHERE subject = 'damaged'",
    "its head's hash is another": "UPDATE chain SET hash = sha256('x') WHERE subject = 'damaged'",
    "its id is another": "UPDATE chain SET chain_id = gen_random_uuid() WHERE subject = 'damaged'",
    "its last entry's hash is another": SILENT.format(
        "UPDATE entry SET at = at + 1, hash = sha256('\\x00'::bytea ||"
        f" entry_envelope(chain_id, seq, prev_hash, tenant, at + 1, kind, pc)) WHERE {OF_CHAIN}"
    ),
    "its last entry is gone": SILENT.format(f"DELETE FROM entry WHERE {OF_CHAIN}"),
    "its last entry is gone and its head knows": SILENT.format(f"DELETE FROM entry WHERE {OF_CHAIN}")
    + "; UPDATE chain SET seq = 1, hash = (SELECT hash FROM entry WHERE entry.chain_id = chain.chain_id AND entry.seq = 1)"
    " WHERE subject = 'damaged'",
}
MEND = """
    UPDATE chain SET chain_id = last.chain_id, seq = last.seq, hash = last.hash
    FROM (SELECT chain_id, seq, hash FROM entry JOIN content USING (chain_id, seq) WHERE subject = 'damaged'
          ORDER BY seq DESC LIMIT 1) AS last WHERE chain.subject = 'damaged'"""


def message(id_: str, subject: str) -> Message:
    return Message("acme.orders", b"{}", message_id=id_, headers={"subject": subject})


def messages(run: str, count: int, subject: str | None = None) -> list[Message]:
    return [message(f"{run}-{n}", subject or f"s-{n % 50}") for n in range(count)]


def buried(database: Any) -> list[tuple]:
    return database.rows("SELECT stage, reason, event_id FROM dead_letter WHERE state = 'open' ORDER BY id")


def recorded(database: Any) -> int:
    return database.rows("SELECT count(*) FROM entry")[0][0]


@pytest.fixture
def configured(database: Any) -> Any:
    database.add_tenant("acme")
    database.add_source("orders", "amqp")
    return database


@pytest.fixture
def tries() -> list[int]:
    """The sizes of the batches that the writer tried to commit."""
    return []


@pytest.fixture
def write(
    configured: Any, engine: Engine, tries: list[int], tmp_path, monkeypatch
) -> Iterator[Callable[[Sequence[Message]], None]]:
    writer = Writer(engine, configured.vault, Blobs(str(tmp_path)), lambda: False)
    commit = writer._commit

    def counted(batch: Sequence[Any]) -> None:
        tries.append(len(batch))
        commit(batch)

    monkeypatch.setattr(writer, "_commit", counted)
    writer.load()
    yield lambda batch: writer.write([writer.judge(each) for each in batch])
    writer.close()


def damage(database: Any, statements: str) -> None:
    with psycopg.connect(database.url) as owner:
        for statement in FREELY.format(statements).split("; "):
            owner.execute(statement)


@pytest.mark.parametrize("statements", DAMAGES.values(), ids=DAMAGES)
def test_messages_on_a_damaged_chain_are_set_aside_in_one_more_try_and_all_others_recorded(
    configured, write, tries, statements
) -> None:
    write([*messages("old", 3, "damaged"), *messages("before", 50)])
    damage(configured, statements)
    before = recorded(configured)
    tries.clear()
    batch = messages("new", 100)
    batch[40:40] = messages("lost", 3, "damaged")

    write([*batch, message("old-0", "damaged")])
    write([*messages("next", 100), *messages("late", 2, "damaged")])

    assert [104, 104, 102] == tries
    assert 200 == recorded(configured) - before
    assert [("append", "chain_broken", id_) for id_ in ("lost-0", "lost-1", "lost-2", "late-0", "late-1")] == buried(configured)
    told = "SELECT kind, tenant, chain_id = (SELECT chain_id FROM chain WHERE subject = 'damaged') FROM operator_event"
    assert [("chain_broken", "acme", True)] == configured.rows(told)
    assert [("acme", None)] == configured.rows("SELECT tenant, mended_at FROM chain_aside")


def test_a_message_of_several_events_is_set_aside_whole_and_a_duplicate_is_not(configured, write) -> None:
    write(messages("old", 3, "damaged"))
    damage(configured, DAMAGES["its head moved back"])
    event = '{"specversion":"1.0","id":"%s","source":"/up","type":"t","subject":"%s"}'
    both = f"[{event % ('b-1', 'fine')},{event % ('b-2', 'damaged')}]".encode()
    batch = Message("acme.orders", both, content_type="application/cloudevents-batch+json", message_id="both")

    write([message("old-1", "damaged"), batch, *messages("new", 3)])

    assert [("append", "chain_broken", "both")] == buried(configured)
    assert 3 + 3 == recorded(configured)


def test_a_mended_chain_takes_what_was_set_aside_in_its_order(configured, write, engine, tries) -> None:
    write(messages("old", 3, "damaged"))
    damage(configured, DAMAGES["its head moved back"])
    write(messages("lost", 3, "damaged"))
    with configured.connect() as owner:
        owner.execute(FREELY.format(MEND))
    tries.clear()

    with transaction(engine) as conn:
        kept = dead_letters.messages(conn, [id_ for (id_,) in configured.rows("SELECT id FROM dead_letter ORDER BY id")])
    write(list(kept.values()))

    assert [3] == tries
    ids = "SELECT convert_from(attributes, 'UTF8')::json->>'id' FROM content ORDER BY seq"
    assert ["old-0", "old-1", "old-2", "lost-0", "lost-1", "lost-2"] == [id_ for (id_,) in configured.rows(ids)]
    assert [(True,)] == configured.rows("SELECT mended_at >= since FROM chain_aside")


def test_a_process_that_begins_knows_what_another_has_set_aside(configured, write, engine, tries, tmp_path) -> None:
    write(messages("old", 3, "damaged"))
    damage(configured, DAMAGES["its head moved back"])
    write(messages("lost", 1, "damaged"))

    writer = Writer(engine, configured.vault, Blobs(str(tmp_path)), lambda: False)
    writer.load()
    (held,) = writer._aside._broken.values()
    assert [(held.tenant, held.chain_id, held.fault)] == configured.rows("SELECT tenant, chain_id, fault FROM chain_aside")
    with configured.connect() as owner:
        owner.execute(FREELY.format(MEND))
    writer.write([writer.judge(each) for each in messages("next", 2, "damaged")])
    writer.close()

    assert 3 + 2 == recorded(configured)
    assert [(True,)] == configured.rows("SELECT mended_at IS NOT NULL FROM chain_aside")


def test_what_was_set_aside_is_shown_and_replayed_by_the_running_system(configured, ingest, publish, cli) -> None:
    def publish_all(batch: Sequence[Message]) -> None:
        for each in batch:
            publish(each.body, message_id=each.message_id, headers=dict(each.headers or {}))

    ingest()
    publish_all(messages("old", 3, "damaged"))
    wait_for(lambda: recorded(configured) == 3)
    damage(configured, DAMAGES["its head moved forward"])
    publish_all([*messages("lost", 3, "damaged"), *messages("new", 50)])
    wait_for(lambda: recorded(configured) == 53 and len(buried(configured)) == 3)
    shown = cli.run("status").stdout
    with configured.connect() as owner:
        owner.execute(FREELY.format(MEND))
    assert 0 == cli.run("dead", "replay", "--reason", "chain_broken", "--yes").exit_code
    wait_for(lambda: recorded(configured) == 56)

    assert "3 messages wait" in next(line for line in shown.splitlines() if line.startswith("broken chains"))
    assert "chain acme/damaged: set aside: the chain's head is at 7, its last entry at 2" in shown
    assert "set aside" not in cli.run("status").stdout
    assert 0 == cli.run("verify").exit_code
    assert [] == buried(configured)
