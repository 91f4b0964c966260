"""Statements by which the verifier finds out what happened to a damaged entry, from what other rows say of it."""

from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import Connection, text

from schemas.ledger.ledger_rows import StoredEntry

LOOKUPS: Final = 1000  # in one verification: each may take a scan, where an index is missing

# The entry after it names its hash, and the chain's row does when it is the last one.
WITNESSES = text("""
    SELECT prev_hash FROM entry WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq + 1
    UNION SELECT hash FROM chain WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq""")

# The chain that an entry was taken out of: the one whose entry it follows, or whose row names it.
ORIGINS = text("""
    SELECT uuid_send(chain_id), tenant FROM entry WHERE hash = :prev AND seq = :seq - 1
    UNION SELECT uuid_send(chain_id), tenant FROM entry WHERE prev_hash = :hash AND seq = :seq + 1
    UNION SELECT uuid_send(chain_id), tenant FROM chain WHERE hash = :hash LIMIT 10""")

COPIES = text("""
    SELECT (SELECT count(*) FROM entry WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq),
           (SELECT count(*) FROM content WHERE chain_id = CAST(:chain_id AS uuid) AND seq = :seq)""")

PRESENT = text("""
    SELECT seq FROM content WHERE chain_id = CAST(:chain_id AS uuid) AND seq BETWEEN :first AND :last
    ORDER BY seq LIMIT 1000""")


class Lookups:
    """Asks other rows about damaged entries. After `LOOKUPS` of them it gives no more answers."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._left = LOOKUPS

    def witnesses(self, entry: StoredEntry, seq: int) -> Collection[bytes]:
        """The hashes that the next entry, or the chain's row, give of entry `seq`."""
        if entry.chain_id is None or not self._more():
            return ()
        return [row[0] for row in self._conn.execute(WITNESSES, {"chain_id": entry.chain_id.hex(), "seq": seq}) if row[0]]

    def origins(self, entry: StoredEntry) -> Collection[tuple[bytes, str]]:
        """The chains, and their tenants, that the entry may have been taken from."""
        if entry.seq is None or not self._more():
            return ()
        asked = {"prev": entry.prev_hash, "hash": entry.hash, "seq": entry.seq}
        found = self._conn.execute(ORIGINS, asked)
        return [(row[0], row[1]) for row in found if row[0] and row[1] and row[0] != entry.chain_id]

    def copies(self, entry: StoredEntry) -> tuple[int, int]:
        """How many entries, and how many contents, have this place."""
        if entry.chain_id is None or not self._more():
            return 2, 1
        row = self._conn.execute(COPIES, {"chain_id": entry.chain_id.hex(), "seq": entry.seq}).one()
        return row[0], row[1]

    def present(self, chain_id: bytes, spans: Iterable[tuple[int, int]]) -> list[int]:
        """The numbers in the spans whose content is there; 1000 of each span at most."""
        found: list[int] = []
        for first, last in spans:
            asked = {"chain_id": chain_id.hex(), "first": first, "last": last}
            found += self._conn.execute(PRESENT, asked).scalars()
        return found

    def _more(self) -> bool:
        self._left -= 1
        return self._left >= 0
