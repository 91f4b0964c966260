"""One log: judged against what is outside, signed, kept, published.

Where the process dies, the next run does the same again: before the checkpoint's row is committed, nothing has happened; after
it, files may be there that nothing refers to, and they are written again for the row's note; after the checkpoint's file, it is
published, and the next run notes that.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import structlog

from ops.errors import OpsError, PlaceAway
from ops.runtime.db import Connection, Engine, transaction
from ops.runtime.places import Place
from ops.runtime.published_log import PublishedLog
from ops.runtime.vault import Vault
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint, unverified_checkpoint
from pipeline.ledger.growth import outgrown
from pipeline.ledger.judge import Judged, Outside, Refused, grown, judge
from pipeline.ledger.merkle import read_frontier
from pipeline.ledger.notes import ED25519, Key, Signer, new_private, sign, split_note
from pipeline.ledger.tiles import WIDTH
from pipeline.store.log import anchors, checkpoints, keys
from pipeline.store.log.checkpoints import OpenLog
from schemas.ledger.log_names import log_origin
from workers.sealer.board import Board, Published

KEPT: Final = 2 * checkpoints.AT_ONCE  # leaves that are kept between judging and publishing; more are read twice

FirstLook = Callable[[OpenLog, bytes | None], None]
Check = Callable[[], None]  # raises when the work is not to go on

_log = structlog.get_logger()


class NoKey(OpsError):
    """A log has keys, and all of them are retired."""


class Sealing:
    """Seals logs, one after the other."""

    def __init__(
        self,
        engine: Engine,
        place: Place,
        base: str,
        vault: Vault,
        board: Board,
        first_look: FirstLook = lambda _log, _note: None,
    ) -> None:
        """`base` begins the logs' origins.

        `first_look` is called before a log is judged: it puts on the board what anchors have of it.
        """
        self._engine = engine
        self._place = place
        self._base = base
        self._vault = vault
        self._board = board
        self._first_look = first_look

    def seal(self, log: OpenLog, fence: Check = lambda: None, beat: Check = lambda: None) -> bool:
        """Publish a checkpoint of the log as it is; give whether there was none of that size yet.

        `beat` is called while a long log is read, `fence` before the checkpoint is replaced: another process may have published
        a later one while this one stood still. Raises what they raise; `Refused`; or `PlaceAway` and database errors, after
        which the same call may succeed.
        """
        files = PublishedLog(self._place, log.tenant, log.incarnation)
        origin = log_origin(self._base, log.tenant, log.incarnation)
        checkpoint = Checkpoint(origin, log.size, _root(log))
        raw, before = self._before(log, origin, files)
        leaves = _Leaves(self._engine, log.id, beat)
        judged = judge(log.size, checkpoint.root, before, self._board.seen(log.id), leaves.read, files.read)
        published = self._signed(log, checkpoint)
        grew = before is None or before.size < log.size
        if grew or _damaged(judged, before):
            files.write(grown(judged.since, judged.tail, leaves.read))
        if grew or _damaged(judged, before) or not raw.startswith(published.signed.encode()):
            fence()
            files.publish(published.signed + ("" if grew else _cosignatures(raw, origin)))
        if before is None:
            with transaction(self._engine) as conn:
                anchors.add(conn, log.id, log.size, "published", self._place.where, b"", datetime.now(UTC))
        self._tidy(files, before, log.size)
        self._board.saw(log.id, Outside("this process, since it was started", log.size, checkpoint.root))
        self._board.show(published)
        return grew

    def stands(self, published: Published) -> bool:
        """Whether this checkpoint is still the one that is published. Raises `PlaceAway`."""
        raw = PublishedLog(self._place, published.log.tenant, published.log.incarnation).checkpoint()
        return raw is not None and raw.startswith(published.signed.encode())

    def cosign(self, published: Published, fence: Check = lambda: None) -> None:
        """Publish the checkpoint again, with the cosignatures that witnesses gave since, while it is still the newest."""
        log = published.log
        files = PublishedLog(self._place, log.tenant, log.incarnation)
        raw = files.checkpoint()
        if raw is None or not raw.startswith(published.signed.encode()):
            return
        before = _cosignatures(raw, published.checkpoint.origin)
        lines = [line for line in self._board.cosignatures(log.id, published.checkpoint.size) if line not in before]
        if lines:
            fence()
            files.publish(published.signed + before + "".join(lines))

    def _before(self, log: OpenLog, origin: str, files: PublishedLog) -> tuple[bytes, Outside | None]:
        """The published checkpoint. Raises `Refused` for one that is not this log's, and for one that is lost."""
        if PublishedLog(self._place, log.tenant, log.incarnation + 1).checkpoint() is not None:
            later = log_origin(self._base, log.tenant, log.incarnation + 1)
            raise Refused("incarnation", f"{later} is published: the database is older than this incarnation of the log")
        with transaction(self._engine) as conn:
            known = [Key(origin, ED25519, key.public) for key in keys.keys(conn, log.id)]
            places = anchors.published_at(conn, log.id)
        raw = files.checkpoint()
        self._first_look(log, raw)
        if raw is None and places:
            lost = f"the log was published at {', '.join(places)}, and {self._place.where} has no checkpoint of it"
            raise Refused("missing", f"{lost}: put the published files back, or copy them there")
        return (b"", None) if raw is None else (raw, _opened(raw, log, origin, known, self._place.where))

    def _signed(self, log: OpenLog, checkpoint: Checkpoint) -> Published:
        """This checkpoint, signed; it is committed when this returns. A log without any key gets its first."""
        with transaction(self._engine) as conn:
            signing = keys.signing(conn, log.id) or self._first_key(conn, log, checkpoint.origin)
            signers = [Signer(checkpoint.origin, self._vault.decrypt(private)) for _, private in signing]
            if [each.key.public for each in signers] != [public for public, _ in signing]:
                raise Refused("checkpoint", "a private key in the database is not the one of its public key")
            signed = sign(checkpoint.text, signers)
            root, note = checkpoints.keep(conn, log.id, checkpoint.size, checkpoint.root, signed, datetime.now(UTC))
        if root != checkpoint.root or split_note(note)[0] != checkpoint.text:
            raise Refused("leaves", f"the database keeps another checkpoint of size {checkpoint.size} than its leaves have")
        return Published(log, checkpoint, note, signed)

    def _first_key(self, conn: Connection, log: OpenLog, origin: str) -> list[tuple[bytes, bytes]]:
        if keys.keys(conn, log.id):
            raise NoKey(f"all keys of {origin} are retired: add one with `waxseal log key {log.tenant} --new`")
        private = new_private()
        made = (Signer(origin, private).key.public, self._vault.encrypt(private))
        keys.add(conn, log.id, *made)
        _log.info("log_key_made", origin=origin, vkey=Signer(origin, private).vkey)
        return [made]

    def _tidy(self, files: PublishedLog, before: Outside | None, size: int) -> None:
        """Delete what was outgrown. What a killed process leaves takes a little room, and nothing else."""
        try:
            files.delete(outgrown(before.size if before else 0, size))
        except PlaceAway as error:
            _log.warning("outgrown_tiles_stay", error=str(error))


def _opened(raw: bytes, log: OpenLog, origin: str, known: list[Key], place: str) -> Outside:
    """A checkpoint that was published for this log, with one of its keys."""
    try:
        claimed = unverified_checkpoint(raw)
        if claimed.origin == origin and claimed.size > log.size:
            return Outside(place, claimed.size, claimed.root)  # whatever its key: the database is older than it
        checkpoint, _ = open_checkpoint(raw, known)
    except Unreadable as error:
        raise Refused("checkpoint", f"the checkpoint published at {place} is not one of this log: {error}") from error
    if checkpoint.origin != origin:
        raise Refused("checkpoint", f"{place} has a checkpoint of {checkpoint.origin}; this log is {origin}")
    return Outside(place, checkpoint.size, checkpoint.root)


def _cosignatures(raw: bytes, origin: str) -> str:
    """The signature lines of a note that are not of the log itself."""
    lines = raw.decode().rpartition("\n\n")[2].splitlines(keepends=True)
    return "".join(line for line in lines if line.split(" ")[1] != origin)


def _root(log: OpenLog) -> bytes:
    try:
        return read_frontier(log.size, log.frontier).root()
    except Unreadable as error:
        raise Refused("leaves", f"the log's own row is damaged: {error}") from error


def _damaged(judged: Judged, before: Outside | None) -> bool:
    """Whether the published tiles could not be used, so that all are written again."""
    return before is not None and judged.since.size < before.size // WIDTH * WIDTH


class _Leaves:
    """Reads leaves in pages; keeps the last few, because a log that grew little is read twice."""

    def __init__(self, engine: Engine, log_id: int, beat: Check) -> None:
        self._engine = engine
        self._log_id = log_id
        self._beat = beat
        self._from = 0
        self._kept: list[bytes] = []

    def read(self, first: int, last: int) -> Iterator[bytes]:
        """The envelopes of these leaves, up to the first that is missing."""
        if self._from <= first and last <= self._from + len(self._kept):
            yield from self._kept[first - self._from : last - self._from]
            return
        for at, end in checkpoints.pages(first, last):
            self._beat()
            with transaction(self._engine) as conn:
                page = checkpoints.leaves(conn, self._log_id, at, end)
            self._keep(at, page)
            yield from page
            if len(page) < end - at:
                return

    def _keep(self, first: int, page: list[bytes]) -> None:
        if first != self._from + len(self._kept) or len(self._kept) + len(page) > KEPT:
            self._from, self._kept = first, []
        self._kept += page
