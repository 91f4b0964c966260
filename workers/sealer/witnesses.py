"""Anchors that are witnesses (c2sp.org/tlog-witness): they cosign a checkpoint that continues the last one they cosigned.

A witness answers 409 with the size that it knows when ours is another: so a restarted sealer, or one of a restored database,
learns what was signed before.
"""

from typing import Final

from ops.runtime.anchor_trust import witness_key
from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.cosignature import read_conflict, read_cosignatures
from pipeline.ledger.judge import Outside
from pipeline.ledger.merkle import consistency_proof
from pipeline.ledger.tiles import TileReader
from pipeline.ledger.tlog_proof import ConsistencyProof
from workers.sealer.anchor import SECONDS, Contradicted, Known, NotAnchored
from workers.sealer.http_post import Answer, Poster

_CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_ANOTHER: Final = b""  # the root of a checkpoint of which is known only that ours does not continue it


class Witness:
    """An anchor that is a witness. It remembers, by log, the size that the witness last cosigned."""

    def __init__(self, url: str, vkey: str, seconds: float = SECONDS) -> None:
        """Raises `Misconfigured` unless `vkey` is a witness's verifier key."""
        self._key = witness_key(url, vkey)
        self._url = url
        self._poster = Poster(f"{url.rstrip('/')}/add-checkpoint", _CONTENT_TYPE, seconds)
        self._sizes: dict[int, int] = {}

    def look(self, known: Known) -> Outside | None:
        """Ask it to cosign the published checkpoint again: it does, or says which size it knows."""
        checkpoint = known.checkpoint
        if checkpoint is None:
            return None
        answer = self._ask(checkpoint, known, checkpoint.size)
        if answer.status == 409:
            seen = self._sizes[known.log.id] = self._conflict(answer)
            return Outside(self._url, seen, None)
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
                raise Contradicted(Outside(self._url, old, None))
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
        return self._poster.post(ConsistencyProof(old, proof, known.note).text.encode())

    def _conflict(self, answer: Answer) -> int:
        try:
            return read_conflict(answer.body)
        except Unreadable as error:
            raise NotAnchored(f"{self._url} answered 409 without a size: {error}") from error

    def _check(self, answer: Answer, checkpoint: Checkpoint, old: int) -> None:
        if answer.status == 422 and old:
            raise Contradicted(Outside(self._url, old, _ANOTHER))
        if answer.status == 404:
            raise NotAnchored(f"{self._url} does not know the log {checkpoint.origin}: give it the log's vkey")
        if answer.status != 200:
            raise NotAnchored(f"{self._url} answered {answer.status}: {answer.text}")
