"""Moves the entries of a schema before 0011, whose envelopes are stored, into the table that has the envelope in columns.

In batches, each a transaction of the caller's. The next batch begins after the last entry that is in the new table, so a copy
that was interrupted is continued. Nobody can append meanwhile: only the last step grants it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, text

BATCH: Final = 20_000  # entries in one transaction
MOST_NAMED: Final = 20  # faults

PENDING = text("SELECT to_regclass('public.entry_v1') IS NOT NULL")
SIZES = text("SELECT (SELECT count(*) FROM entry_v1), (SELECT count(*) FROM entry)")

# The parts of the envelope that were no columns; null where they are not what they must be. `encode`, because the bytes may be
# anything, and it never fails. No regular expression with groups: it takes milliseconds a row. OFFSET 0: once for each row.
PAGE: Final = """
    SELECT page.*, CASE WHEN at_text ~ '^-?[0-9]{1,16}$' THEN CAST(at_text AS bigint) END AS at,
           CASE WHEN kind_text ~ '^[a-z]{1,32}$' THEN kind_text END AS kind,
           CASE WHEN length(pc_text) = 64 AND translate(pc_text, '0123456789abcdef', '') = '' THEN decode(pc_text, 'hex')
           END AS pc
    FROM (SELECT read.*, split_part(substr(said, 7), ',', 1) AS at_text,
                 split_part(split_part(said, '"kind":"', 2), '"', 1) AS kind_text,
                 substr(split_part(said, '"pc":"', 2), 1, 64) AS pc_text
          FROM (SELECT *, encode(envelope, 'escape') AS said FROM entry_v1
                WHERE (chain_id, seq) > (CAST(:chain AS uuid), CAST(:seq AS bigint))
                ORDER BY chain_id, seq LIMIT :batch) AS read OFFSET 0) AS page"""

LAST_OF_PAGE = text("""
    SELECT CAST(chain_id AS text) AS chain_id, seq FROM entry_v1
    WHERE (chain_id, seq) > (CAST(:chain AS uuid), CAST(:seq AS bigint)) ORDER BY chain_id, seq OFFSET :batch - 1 LIMIT 1""")

# Everything that would keep an entry from being the same one in the new table.
FAULTS = text(f"""
    SELECT chain_id, seq, tenant, subject, fault FROM (
      SELECT page.chain_id, page.seq, page.tenant, chain.subject,
             CASE WHEN chain.chain_id IS NULL THEN 'there is no row of its chain'
                  WHEN (page.envelope = entry_envelope(page.chain_id, page.seq, page.prev_hash, page.tenant, at, kind, pc)
                        AND octet_length(page.tenant) BETWEEN 1 AND 63 AND abs(at) < 9007199254740992
                        AND translate(page.tenant, 'abcdefghijklmnopqrstuvwxyz0123456789-', '') = '') IS NOT true
                  THEN 'its envelope is not the one that its columns make'
                  WHEN page.hash IS DISTINCT FROM sha256('\\x00'::bytea || page.envelope) THEN 'its hash is not its envelope''s'
                  WHEN (page.seq = 0) <> (page.prev_hash IS NULL) OR page.prev_hash IS DISTINCT FROM before.hash
                  THEN 'it does not follow the entry before it' END AS fault
      FROM ({PAGE}) AS page LEFT JOIN chain ON chain.chain_id = page.chain_id
      LEFT JOIN entry_v1 AS before ON before.chain_id = page.chain_id AND before.seq = page.seq - 1) AS checked
    WHERE fault IS NOT NULL ORDER BY chain_id, seq LIMIT :most""")  # noqa: S608 - made of constants

_HEADS: Final = """
    SELECT chain.chain_id, last.seq, chain.tenant, chain.subject,
           'its head is at ' || chain.seq || ', its last entry at ' || coalesce(CAST(last.seq AS text), 'none') AS fault
    FROM chain LEFT JOIN LATERAL
      (SELECT seq, hash FROM {table} AS one WHERE one.chain_id = chain.chain_id ORDER BY seq DESC LIMIT 1) AS last ON true
    WHERE chain.seq <> coalesce(last.seq, -1) OR chain.hash IS DISTINCT FROM last.hash
    ORDER BY chain.chain_id LIMIT :most"""
OLD_HEADS, NEW_HEADS = text(_HEADS.format(table="entry_v1")), text(_HEADS.format(table="entry"))

LAST_COPIED = text("SELECT CAST(chain_id AS text) AS chain_id, seq FROM entry ORDER BY entry.chain_id DESC, seq DESC LIMIT 1")
COPY = text(f"""
    INSERT INTO entry (chain_id, seq, prev_hash, hash, tenant, at, kind, pc, fingerprint)
    SELECT chain_id, seq, prev_hash, hash, tenant, at, kind, pc, fingerprint FROM ({PAGE}) AS page""")  # noqa: S608

FINISH = text("DROP TABLE entry_v1")
OPEN = text("GRANT INSERT ON entry TO waxseal_writer")
ANALYZE = text("ANALYZE entry")

# A small table's statistics, or none, would make the planner sort what the index has in order. What is off counts as very
# expensive where there is no other way, and expensive statements would be compiled first, for seconds.
BY_INDEX = text("SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_sort', 'enable_seqscan', 'jit']) AS name")

_BEFORE_ALL: Final = ("00000000-0000-0000-0000-000000000000", -1)


class NotTheSame(Exception):
    """Entries that the new table could not hold as they are, or does not; `str` names them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of entries in the old table and in the new one."""

    old: int
    new: int


def pending(conn: Connection) -> bool:
    """Whether entries wait to be copied, or for the last step after it."""
    return bool(conn.execute(PENDING).scalar_one())


def sizes(conn: Connection) -> Sizes:
    """The numbers of entries; reads both tables."""
    return Sizes(*conn.execute(SIZES).one())


def check(conn: Connection) -> None:
    """Raises `NotTheSame` unless columns rebuild each old entry to the byte, and each chain ends as its head says."""
    conn.execute(BY_INDEX)
    faults: list[str] = []
    place = _BEFORE_ALL
    while len(faults) < MOST_NAMED:
        asked = {"chain": place[0], "seq": place[1], "batch": BATCH}
        faults += _told(conn.execute(FAULTS, {**asked, "most": MOST_NAMED - len(faults)}))
        last = conn.execute(LAST_OF_PAGE, asked).one_or_none()
        if last is None:
            break
        place = (last.chain_id, last.seq)
    faults += _told(conn.execute(OLD_HEADS, {"most": MOST_NAMED}))
    if faults:
        raise NotTheSame("; ".join(faults[:MOST_NAMED]))


def copy_batch(conn: Connection) -> int:
    """Copies the next entries; returns their number, 0 when all are there."""
    conn.execute(BY_INDEX)
    last = conn.execute(LAST_COPIED).one_or_none()
    chain, seq = (last.chain_id, last.seq) if last else _BEFORE_ALL
    return conn.execute(COPY, {"chain": chain, "seq": seq, "batch": BATCH}).rowcount


def finish(conn: Connection) -> None:
    """Drops the old table and lets processes append. Raises `NotTheSame` unless all entries and every head are as before."""
    conn.execute(BY_INDEX)
    found = sizes(conn)
    if found.old != found.new:
        raise NotTheSame(f"there were {found.old} entries, and {found.new} have been copied")
    if faults := list(_told(conn.execute(NEW_HEADS, {"most": MOST_NAMED}))):
        raise NotTheSame("; ".join(faults))
    conn.execute(FINISH)
    conn.execute(OPEN)
    conn.execute(ANALYZE)


def _told(rows: Iterable[Any]) -> Iterator[str]:
    for row in rows:
        entry = "" if row.seq is None else f" entry {row.seq}"
        yield f"{row.tenant}/{row.subject or '?'}{entry} (chain {row.chain_id.hex}): {row.fault}"
