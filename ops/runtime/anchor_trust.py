"""By what the answers of anchors are verified: a witness's key, and the certificates of time-stamping authorities."""

from datetime import datetime
from pathlib import Path

from cryptography import x509
from rfc3161_client import TimeStampRequest, VerificationError, VerifierBuilder, decode_timestamp_response

from ops.errors import Misconfigured
from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.notes import COSIGNATURE, Key, read_vkey


def witness_key(url: str, vkey: str) -> Key:
    """The key of the witness at `url`. Raises `Misconfigured` unless `vkey` is a witness's verifier key."""
    try:
        key = read_vkey(vkey)
    except Unreadable as error:
        raise Misconfigured(f"WAXSEAL_LOG_ANCHORS: the vkey of {url}: {error}") from error
    if key.algorithm != COSIGNATURE:
        raise Misconfigured(f"WAXSEAL_LOG_ANCHORS: the vkey of {url} is a log's, not a witness's (cosignature/v1)")
    return key


class Authorities:
    """The time-stamping authorities that the certificates in a PEM file lead to: trusted roots, and perhaps some between."""

    def __init__(self, path: str) -> None:
        """Raises `Misconfigured`."""
        try:
            found = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise Misconfigured(f"WAXSEAL_LOG_ANCHORS: {path} is no file of PEM certificates: {error}") from error
        self._roots = [each for each in found if each.subject == each.issuer]
        self._between = [each for each in found if each.subject != each.issuer]
        if not self._roots:
            raise Misconfigured(f"WAXSEAL_LOG_ANCHORS: {path} holds no root certificate")

    def stamped_at(self, receipt: bytes, note: bytes, asked: TimeStampRequest | None = None) -> datetime:
        """When `note` was stamped, by a response (DER), which must answer `asked` if that is given. Raises `Unproven`."""
        verifier = VerifierBuilder() if asked is None else VerifierBuilder.from_request(asked)
        for root in self._roots:
            verifier = verifier.add_root_certificate(root)
        for each in self._between:
            verifier = verifier.add_intermediate_certificate(each)
        try:
            response = decode_timestamp_response(receipt)
            verifier.build().verify_message(response, note)
            return response.tst_info.gen_time
        except (VerificationError, ValueError) as error:
            raise Unproven(f"the time stamp does not verify: {error}") from error
