"""Proofs that can be kept as files: of inclusion (c2sp.org/tlog-proof@v1) and of consistency. Pure.

There is no such format for consistency alone: the body of a request to a witness (c2sp.org/tlog-witness) is used, which holds
the old size, the proof and the newer checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import Unreadable
from pipeline.ledger.encodings import from_base64, hash_from_base64, read_decimal, to_base64

VERSION: Final = "c2sp.org/tlog-proof@v1"
MOST_HASHES: Final = 63
LONGEST_PROOF: Final = 2_000_000  # characters


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Shows that a leaf is at `index` in the tree of the signed note `checkpoint`. `extra` is not signed by anyone."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    @property
    def text(self) -> str:
        """The proof as a file."""
        extra = "" if self.extra is None else f"extra {to_base64(self.extra)}\n"
        return f"{VERSION}\n{extra}index {self.index}\n{_hash_lines(self.hashes)}\n{self.checkpoint}"


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Shows that the tree of the signed note `checkpoint` continues that of `old` leaves."""

    old: int
    hashes: tuple[bytes, ...]
    checkpoint: str

    @property
    def text(self) -> str:
        """The proof as a file, and as the body of a request to a witness."""
        return f"old {self.old}\n{_hash_lines(self.hashes)}\n{self.checkpoint}"


def read_inclusion_proof(raw: bytes | str) -> InclusionProof:
    """A proof of inclusion from its text; nothing of it is verified. Raises `Unreadable`."""
    lines, checkpoint = _parts(raw)
    if lines[0] != VERSION:
        raise Unreadable(f"the first line of a proof of inclusion is {VERSION}")
    del lines[0]
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = from_base64(lines.pop(0).removeprefix("extra "), "extra")
    return InclusionProof(_number(lines, "index"), _hashes(lines[1:]), checkpoint, extra)


def read_consistency_proof(raw: bytes | str) -> ConsistencyProof:
    """A proof of consistency from its text; nothing of it is verified. Raises `Unreadable`."""
    lines, checkpoint = _parts(raw)
    return ConsistencyProof(_number(lines, "old"), _hashes(lines[1:]), checkpoint)


def _parts(raw: bytes | str) -> tuple[list[str], str]:
    """The lines before the first blank one, and the checkpoint after it."""
    if len(raw) > LONGEST_PROOF:
        raise Unreadable("this is too long for a proof")
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise Unreadable("a proof is UTF-8") from None
    head, blank, checkpoint = text.partition("\n\n")
    if not blank:
        raise Unreadable("a proof has a blank line before its checkpoint")
    return head.split("\n"), checkpoint


def _number(lines: Sequence[str], name: str) -> int:
    if not lines or not lines[0].startswith(f"{name} "):
        raise Unreadable(f"a line of the proof does not say {name!r}")
    return read_decimal(lines[0].removeprefix(f"{name} "), name)


def _hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    if len(lines) > MOST_HASHES:
        raise Unreadable(f"a proof has {MOST_HASHES} hashes at most")
    return tuple(hash_from_base64(line, "a hash of the proof") for line in lines)


def _hash_lines(hashes: Sequence[bytes]) -> str:
    return "".join(f"{to_base64(each)}\n" for each in hashes)
