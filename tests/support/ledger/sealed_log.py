"""A tenant's log that grows, is sealed and is read again."""

from dataclasses import dataclass, field

from sqlalchemy import Engine

from ops.runtime.db import transaction
from ops.runtime.places import Place
from ops.runtime.published_log import PublishedLog
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint
from pipeline.ledger.merkle import leaf_hash, root_of
from pipeline.ledger.notes import ED25519, Key
from pipeline.ledger.tiles import TileReader
from pipeline.store.log import checkpoints
from pipeline.store.log.checkpoints import OpenLog
from support.ledger.growing import grow
from workers.sealer.board import Board
from workers.sealer.sealing import Sealing

BASE = "ledger.example"


@dataclass
class Log:
    """A tenant's log in the database, and where it is published."""

    database: object
    engine: Engine
    place: Place
    id: int
    tenant: str = "acme"
    envelopes: list[bytes] = field(default_factory=list)

    def grow(self, count: int, seed: str = "") -> None:
        self.envelopes += grow(self.database, self.id, count, seed)

    @property
    def row(self) -> OpenLog:
        with transaction(self.engine) as conn:
            found = checkpoints.open_log(conn, self.tenant)
        assert found is not None
        return found

    @property
    def files(self) -> PublishedLog:
        return PublishedLog(self.place, self.tenant, 1)

    def sealing(self, place: Place | None = None, board: Board | None = None) -> Sealing:
        return Sealing(self.engine, place or self.place, BASE, self.database.vault, board or Board())

    def seal(self, **others: object) -> bool:
        return self.sealing(**others).seal(self.row)

    def keys(self) -> list[Key]:
        rows = self.database.rows("SELECT public FROM log_key WHERE log_id = %s ORDER BY id", self.id)
        return [Key(f"{BASE}/{self.tenant}", ED25519, bytes(public)) for (public,) in rows]

    def published(self) -> Checkpoint:
        raw = self.files.checkpoint()
        assert raw is not None
        return open_checkpoint(raw, self.keys())[0]

    def check(self) -> None:
        """What is published is the whole log, to the byte."""
        size = len(self.envelopes)
        assert Checkpoint(f"{BASE}/{self.tenant}", size, root_of(map(leaf_hash, self.envelopes))) == self.published()
        reader = TileReader(self.files.read, size)
        assert self.envelopes == [each for at in range(-(-size // 256)) for each in reader.entries(at)]
        assert root_of(reader.node(0, at) for at in range(size)) == self.published().root
