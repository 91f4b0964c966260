"""Checkpoints (c2sp.org/tlog-checkpoint): what a log signs, its origin, size and root. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.encodings import hash_from_base64, read_decimal, to_base64
from pipeline.ledger.merkle import EMPTY_ROOT
from pipeline.ledger.notes import Key, open_note, split_note


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree at one size."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed. It has no extension lines."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


def read_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises `Unreadable`, also for extension lines, which our logs do not have."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise Unreadable("a checkpoint has three lines: origin, size and root")
    size = read_decimal(lines[1], "the checkpoint's size")
    root = hash_from_base64(lines[2], "the checkpoint's root")
    if not size and root != EMPTY_ROOT:
        raise Unreadable("the checkpoint's root is not that of an empty tree")
    return Checkpoint(lines[0], size, root)


def unverified_checkpoint(raw: bytes | str) -> Checkpoint:
    """The checkpoint in a note, whoever signed it. Raises `Unreadable`."""
    return read_checkpoint(split_note(raw)[0])


def open_checkpoint(raw: bytes | str, keys: Iterable[Key]) -> tuple[Checkpoint, tuple[str, ...]]:
    """A checkpoint that its own log signed, and the names of all of `keys` that signed it.

    Raises `Unproven` if none of the keys under the origin's name did, or a signature is wrong; `Unreadable` for anything else.
    """
    text, names = open_note(raw, keys)
    checkpoint = read_checkpoint(text)
    if checkpoint.origin not in names:
        raise Unproven(f"no key of the log {checkpoint.origin:.200} that was given has signed this")
    return checkpoint, names


def read_signed(raw: bytes | str, keys: Sequence[Key]) -> tuple[Checkpoint, tuple[str, ...]]:
    """A checkpoint, and who signed it: with `keys`, its log must have; without, nobody is known to. Raises `Unreadable`."""
    return open_checkpoint(raw, keys) if keys else (unverified_checkpoint(raw), ())
