"""Anchors that are time-stamping authorities (RFC 3161): they sign the time at which they saw a checkpoint's note.

An authority remembers nothing, so it cannot say how long a log was; the stamp is kept with the checkpoint, and shows to anyone
who trusts the authority that the log had this root no later than then. Verify one with `openssl ts -verify`.
"""

from typing import Final

from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

from ops.runtime.anchor_trust import Authorities
from pipeline.errors import Unproven
from pipeline.ledger.judge import Outside
from workers.sealer.anchor import SECONDS, Known, NotAnchored
from workers.sealer.http_post import Poster

_QUERY: Final = "application/timestamp-query"


class TimeStamps:
    """An anchor that is a time-stamping authority."""

    def __init__(self, url: str, authorities: str, seconds: float = SECONDS) -> None:
        """`authorities`: a file of PEM certificates, the trusted roots and perhaps some between. Raises `Misconfigured`."""
        self._url = url
        self._poster = Poster(url, _QUERY, seconds)
        self._authorities = Authorities(authorities)

    def look(self, known: Known) -> Outside | None:  # noqa: ARG002 - others look
        """An authority keeps nothing."""
        return None

    def take(self, known: Known) -> tuple[bytes, list[str]]:
        """Have the note stamped; gives the response as received (DER), which was verified."""
        note = known.note.encode()
        asked = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).nonce(nonce=True).build()
        answer = self._poster.post(asked.as_bytes())
        if answer.status != 200:
            raise NotAnchored(f"{self._url} answered {answer.status}: {answer.text}")
        try:
            self._authorities.stamped_at(answer.body, note, asked)
        except Unproven as error:
            raise NotAnchored(f"{self._url}: {error}") from error
        return answer.body, []
