"""What is said to a witness and what it answers (c2sp.org/tlog-witness, c2sp.org/tlog-cosignature). Pure.

A request is `tlog_proof.ConsistencyProof(...).text`: the old size that the witness knows, the proof, and the checkpoint.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.errors import Unreadable
from pipeline.ledger.encodings import read_decimal
from pipeline.ledger.notes import (
    COSIGNATURE,
    Key,
    cosignature_time,
    cosigned_message,
    read_signatures,
    signature_line,
    split_note,
    verified,
)


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What a witness has stated: that it saw the checkpoint at `time`, in seconds since 1970. `line` is the signature line."""

    witness: str
    time: int
    line: str


def read_cosignatures(note: str, answer: bytes, keys: Iterable[Key]) -> list[Cosigned]:
    """The cosignatures of the checkpoint `note` in a witness's answer, each verified; those of unknown keys are ignored.

    Raises `Unproven` if none is of `keys`, or one is wrong; `Unreadable` for anything else.
    """
    text, _ = split_note(note)
    try:
        lines = answer.decode()
    except UnicodeDecodeError:
        raise Unreadable("the witness's answer is not UTF-8") from None
    if not lines.endswith("\n"):
        raise Unreadable("the witness's answer does not end its last line")
    witnesses = [key for key in keys if key.algorithm == COSIGNATURE]
    return [
        Cosigned(key.name, cosignature_time(each.raw), signature_line(key, each.raw))
        for key, each in verified(text, read_signatures(lines), witnesses)
    ]


def read_conflict(answer: bytes) -> int:
    """The size of the checkpoint that a witness has seen, from its answer 409. Raises `Unreadable`."""
    try:
        line = answer.decode("ascii")
    except UnicodeDecodeError:
        line = ""
    if not line.endswith("\n"):
        raise Unreadable("the witness's answer is not a size and a line end")
    return read_decimal(line.removesuffix("\n"), "the witness's size")


def cosign(name: str, private: bytes, note: str, time: int) -> str:
    """The signature line of a witness that saw the checkpoint `note` at `time`. Raises `Unreadable`."""
    text, _ = split_note(note)
    signing = Ed25519PrivateKey.from_private_bytes(private)
    key = Key(name, COSIGNATURE, signing.public_key().public_bytes_raw())
    return signature_line(key, time.to_bytes(8, "big") + signing.sign(cosigned_message(text, time)))
