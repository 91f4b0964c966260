"""Where every chain ended, recorded from time to time; and the proof that a chain is among them."""

import json
from datetime import UTC, datetime

from sqlalchemy import Engine

from ops.runtime.db import transaction
from pipeline.ledger.heads import Member, member_proofs, read_heads
from pipeline.ledger.merkle import check_inclusion, leaf_hash, root_of
from pipeline.ledger.sequence import sequence
from pipeline.store.log import checkpoints
from support.ledger import events
from support.ledger.events import event_of
from workers.ingest.heads_entries import HeadsEntries

KEY = b"k" * 32


def record(engine: Engine, sealer: Engine, *subjects: str) -> None:
    now = datetime.now(UTC)
    events.record(engine, *(event_of(KEY, "acme", subject, f"{now}-{n}") for n, subject in enumerate(subjects)), now=now)
    position(sealer)


def position(sealer: Engine) -> None:
    with transaction(sealer) as conn:
        sequence(conn, "acme")


def bodies(database) -> list[dict]:
    found = "SELECT body FROM content JOIN entry USING (chain_id, seq) WHERE kind = 'heads' ORDER BY seq"
    return [json.loads(bytes(body)) for (body,) in database.rows(found)]


def test_heads_are_recorded_once_for_all_processes_and_prove_where_a_chain_ended(
    database, engine, sealer_engine, monkeypatch
) -> None:
    monkeypatch.setattr("workers.ingest.heads_entries.PAGE", 2)
    monkeypatch.setattr("workers.ingest.heads_entries.PAUSE", 0.0)
    database.add_tenant("acme")
    first, second = (HeadsEntries(engine, database.vault, 3600.0) for _ in range(2))
    for each in (first, second):
        each._chore.close()
    first._stop.clear()
    record(engine, sealer_engine, "a", "b", "a", "c", "a")
    with transaction(engine) as conn:
        log = checkpoints.open_log(conn, "acme")
    record(engine, sealer_engine, "a", "d")  # after the size that is committed to

    made = [each.record(log, KEY) for each in (first, second)]
    assert [5, None] == [None if each is None else each.size for each in made]
    heads = made[0]
    rows = database.rows(
        "SELECT DISTINCT ON (chain_id) chain_id, seq, hash FROM leaf JOIN entry USING (chain_id, seq)"
        " WHERE position < 5 ORDER BY chain_id, seq DESC"
    )
    members = [Member(chain, seq, bytes(hashed)) for chain, seq, hashed in rows]
    assert (3, root_of(leaf_hash(each.data) for each in members)) == (heads.count, heads.root)
    assert [{"count": 3, "root": heads.root.hex(), "size": 5}] == bodies(database)
    assert heads == read_heads(heads.body)
    ((chain,),) = database.rows("SELECT chain_id FROM chain WHERE subject = 'a'")
    (proof,) = member_proofs(3, members, {chain}).values()
    assert 2 == proof.member.seq
    check_inclusion(leaf_hash(proof.member.data), proof.index, proof.count, proof.proof, heads.root)

    position(sealer_engine)  # the entry of heads gets its own position
    assert [("heads", 7)] == database.rows(
        "SELECT kind, position FROM leaf JOIN entry USING (chain_id, seq) WHERE kind = 'heads'"
    )


def test_a_log_that_grew_by_its_heads_only_gets_no_others(database, engine, sealer_engine) -> None:
    database.add_tenant("acme")
    chore = HeadsEntries(engine, database.vault, 0.0)
    chore._chore.close()
    record(engine, sealer_engine, "a", "b")
    for _ in range(3):
        chore.turn()
        position(sealer_engine)
    assert [2] == [each["size"] for each in bodies(database)]

    record(engine, sealer_engine, "a")
    chore.turn()
    assert [2, 4] == [each["size"] for each in bodies(database)]
    assert 3 == bodies(database)[1]["count"], "the chain of heads is one of them"
