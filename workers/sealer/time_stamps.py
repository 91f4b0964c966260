"""Anchors that are time-stamping authorities (RFC 3161): they sign the time at which they saw a checkpoint's note.

An authority remembers nothing, so it cannot say how long a log was; the stamp is kept with the checkpoint, and shows to anyone
who trusts the authority that the log had this root no later than then. Verify one with `openssl ts -verify`.
"""

from pathlib import Path
from typing import Final

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from ops.errors import Misconfigured
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
        self._roots, self._between = _certificates(authorities)

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
        verifier = VerifierBuilder.from_request(asked)
        for root in self._roots:
            verifier = verifier.add_root_certificate(root)
        for each in self._between:
            verifier = verifier.add_intermediate_certificate(each)
        try:
            verifier.build().verify_message(decode_timestamp_response(answer.body), note)
        except (VerificationError, ValueError) as error:
            raise NotAnchored(f"{self._url} gave a time stamp that does not verify: {error}") from error
        return answer.body, []


def _certificates(path: str) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """The self-signed ones, which are trusted, and the others."""
    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise Misconfigured(f"WAXSEAL_LOG_ANCHORS: {path} is no file of PEM certificates: {error}") from error
    roots = [each for each in found if each.subject == each.issuer]
    if not roots:
        raise Misconfigured(f"WAXSEAL_LOG_ANCHORS: {path} holds no root certificate")
    return roots, [each for each in found if each.subject != each.issuer]
