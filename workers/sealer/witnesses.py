"""Anchors that are witnesses (c2sp.org/tlog-witness): they cosign a checkpoint that continues the last one they cosigned.

A witness answers 409 with the size that it knows when ours is another: so a restarted sealer, or one of a restored database,
learns what was signed before. Nobody has signed that answer, and whoever is on the way could stop a log with it. So a witness
that contradicts the log is asked to show the checkpoint that it cosigned, as it serves it for monitors.
"""

from hashlib import sha256
from typing import Final, NoReturn
from urllib.parse import urlsplit

from ops.errors import PlaceAway
from ops.runtime.anchor_trust import witness_key
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import Checkpoint, read_checkpoint
from pipeline.ledger.cosignature import read_conflict, read_cosignatures
from pipeline.ledger.judge import Outside
from pipeline.ledger.merkle import consistency_proof
from pipeline.ledger.notes import open_note
from pipeline.ledger.tiles import TileReader
from pipeline.ledger.tlog_proof import ConsistencyProof
from workers.sealer.anchor import SECONDS, Contradicted, Disputed, Known, NotAnchored
from workers.sealer.http_post import Answer, Poster

_CONTENT_TYPE: Final = "text/plain; charset=utf-8"


class Witness:
    """An anchor that is a witness. It remembers, by log, the size that the witness last cosigned."""

    def __init__(self, url: str, vkey: str, seconds: float = SECONDS) -> None:
        """Raises `Misconfigured` unless `vkey` is a witness's verifier key."""
        self._key = witness_key(url, vkey)
        self._url = url
        self._poster = Poster(f"{url.rstrip('/')}/add-checkpoint", _CONTENT_TYPE, seconds)
        self._path = urlsplit(url).path.rstrip("/")
        self._sizes: dict[int, int] = {}

    def look(self, known: Known) -> Outside | None:
        """Ask it to cosign the published checkpoint again: it does, or says which size it knows."""
        checkpoint = known.checkpoint
        if checkpoint is None:
            return None
        answer = self._ask(checkpoint, known, checkpoint.size)
        if answer.status == 409:
            seen = self._sizes[known.log.id] = self._conflict(answer)
            if seen > checkpoint.size:
                self._contradict(checkpoint, f"answers that it has cosigned size {seen}, and {checkpoint.size} is published")
            return None
        self._check(answer, checkpoint, checkpoint.size)
        self._sizes[known.log.id] = checkpoint.size
        return Outside(self._url, checkpoint.size, checkpoint.root)

    def take(self, known: Known) -> tuple[bytes, list[str]]:
        """Have the checkpoint cosigned. The witness's own size is tried once when it differs from the one we remember."""
        checkpoint, log_id = known.published, known.log.id
        old = min(self._sizes.get(log_id, 0), checkpoint.size)
        answer = self._ask(checkpoint, known, old)
        if answer.status == 409:
            old = self._sizes[log_id] = self._conflict(answer)
            if old > checkpoint.size:
                self._contradict(checkpoint, f"answers that it has cosigned size {old}, and {checkpoint.size} is published")
            answer = self._ask(checkpoint, known, old)
        self._check(answer, checkpoint, old)
        try:
            found = read_cosignatures(known.note, answer.body, [self._key])
        except Unreadable as error:
            raise NotAnchored(f"{self._url} gave no valid cosignature: {error}") from error
        self._sizes[log_id] = checkpoint.size
        lines = [each.line for each in found]
        return "".join(lines).encode(), lines

    def _ask(self, checkpoint: Checkpoint, known: Known, old: int) -> Answer:
        proof = consistency_proof(old, checkpoint.size, TileReader(known.read, checkpoint.size).node)
        return self._poster.post(ConsistencyProof(old, proof, known.signed or known.note).text.encode())

    def _conflict(self, answer: Answer) -> int:
        try:
            return read_conflict(answer.body)
        except Unreadable as error:
            raise NotAnchored(f"{self._url} answered 409 without a size: {error}") from error

    def _check(self, answer: Answer, checkpoint: Checkpoint, old: int) -> None:
        if answer.status == 422 and old:
            self._contradict(checkpoint, f"answers that size {checkpoint.size} does not continue {old}, which it has cosigned")
        if answer.status == 404:
            raise NotAnchored(f"{self._url} does not know the log {checkpoint.origin}: give it the log's vkey")
        if answer.status != 200:
            raise NotAnchored(f"{self._url} answered {answer.status}: {answer.text}")

    def _contradict(self, checkpoint: Checkpoint, said: str) -> NoReturn:
        """Raise `Contradicted` if the witness shows, signed, a larger checkpoint or another one of this size; or `Disputed`."""
        seen = self._shown(checkpoint.origin)
        if seen is not None and (seen.size, seen.root) != (checkpoint.size, checkpoint.root) and seen.size >= checkpoint.size:
            raise Contradicted(seen)
        raise Disputed(f"{self._url} {said}; it shows no checkpoint that says so", seen)

    def _shown(self, origin: str) -> Outside | None:
        """The checkpoint that it serves (c2sp.org/tlog-witness, monitor retrieval), if it has signed it."""
        try:
            answer = self._poster.get(f"{self._path}/{sha256(origin.encode()).hexdigest()}/checkpoint")
            text, _ = open_note(answer.body, [self._key])
            shown = read_checkpoint(text)
        except (PlaceAway, Unreadable):
            return None
        return Outside(self._url, shown.size, shown.root) if shown.origin == origin else None
