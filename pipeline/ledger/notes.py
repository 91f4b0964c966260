"""Signed notes (c2sp.org/signed-note): a text with signature lines, as transparency logs sign their checkpoints. Pure.

Two kinds of signatures are known: Ed25519 over the text, by which a log signs, and cosignature/v1 (c2sp.org/tlog-cosignature),
by which a witness states when it saw the text. Lines of unknown keys are ignored, as the specification demands.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.encodings import from_base64, to_base64

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04
MOST_SIGNATURES: Final = 100
LONGEST_NOTE: Final = 1_000_000  # characters

_DASH: Final = "\u2014 "
_ID_BYTES: Final = 4
_KEY_BYTES: Final = 32
_TIME_BYTES: Final = 8
_LATEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Key:
    """A public key under the name by which it signs notes."""

    name: str
    algorithm: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that name the key in signature lines."""
        return sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public).digest()[:_ID_BYTES]

    @property
    def vkey(self) -> str:
        """The key as a verifier key: name+id+key."""
        return f"{self.name}+{self.id.hex()}+{to_base64(bytes([self.algorithm]) + self.public)}"

    def signed(self, text: str, signature: bytes) -> bool:
        """Whether `signature`, without the key's id, is this key's of `text`."""
        message = text.encode()
        if self.algorithm == COSIGNATURE:
            if len(signature) <= _TIME_BYTES or (time := cosignature_time(signature)) > _LATEST:
                return False
            message, signature = cosigned_message(text, time), signature[_TIME_BYTES:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A private Ed25519 key, of 32 bytes, that signs notes under `name`."""

    name: str
    private: bytes

    @property
    def key(self) -> Key:
        """The public key."""
        return Key(self.name, ED25519, self._key().public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        """The public key as a verifier key: name+id+key."""
        return self.key.vkey

    def line(self, text: str) -> str:
        """The signature line under `text`."""
        return signature_line(self.key, self._key().sign(text.encode()))

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line that was not verified. `raw` is what follows the key's id."""

    name: str
    key_id: bytes
    raw: bytes


def new_private() -> bytes:
    """A fresh private key."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def sign(text: str, signers: Iterable[Signer]) -> str:
    """The note: `text`, which must end its last line, with a signature line of each signer. Raises `Unreadable`."""
    lines = []
    for signer in signers:
        _check_name(signer.name)
        lines.append(signer.line(text))
    note = f"{text}\n{''.join(lines)}"
    if not lines or split_note(note)[0] != text:
        raise Unreadable("a note needs a text of whole lines, and a signature")
    return note


def signature_line(key: Key, signature: bytes) -> str:
    """The line that says that `key` made `signature`."""
    return f"{_DASH}{key.name} {to_base64(key.id + signature)}\n"


def read_vkey(vkey: str) -> Key:
    """The public key in a verifier key. Raises `Unreadable`."""
    name, plus, rest = vkey.partition("+")
    key_id, more, encoded = rest.partition("+")
    if not plus or not more:
        raise Unreadable("a verifier key has three parts: name+id+key")
    _check_name(name)
    raw = from_base64(encoded, "the verifier key's last part")
    if len(raw) != 1 + _KEY_BYTES or raw[0] not in {ED25519, COSIGNATURE}:
        raise Unreadable("the verifier key is neither of Ed25519 nor of cosignature/v1")
    key = Key(name, raw[0], raw[1:])
    if key.id.hex() != key_id:
        raise Unreadable("the verifier key's id is not that of its name and key")
    return key


def open_note(raw: bytes | str, keys: Iterable[Key]) -> tuple[str, tuple[str, ...]]:
    """The text of a note, and the names of those `keys` that signed it, in the order of their lines.

    Raises `Unproven` if none did, or if a signature of a known key is wrong; `Unreadable` for what is no note.
    """
    text, signatures = split_note(raw)
    return text, tuple(key.name for key, _ in verified(text, signatures, keys))


def verified(text: str, signatures: Iterable[Signature], keys: Iterable[Key]) -> list[tuple[Key, Signature]]:
    """Each of `keys` that signed `text`, with its first signature. Raises `Unproven` if none did, or one is wrong."""
    known = _by_name_and_id(keys)
    found: dict[Key, Signature] = {}
    for signature in signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None or key in found:
            continue
        if not key.signed(text, signature.raw):
            raise Unproven(f"the signature of {key.name:.200} is not of this text")
        found[key] = signature
    if not found:
        raise Unproven("no key that was given has signed this")
    return list(found.items())


def split_note(raw: bytes | str) -> tuple[str, list[Signature]]:
    """The text of a note, and its signatures, none of them verified. Raises `Unreadable`."""
    note = _decoded(raw)
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise Unreadable("this is no signed note: a text, a blank line and signature lines")
    return text + "\n", read_signatures(lines)


def read_signatures(lines: str) -> list[Signature]:
    """The signatures in whole signature lines. Raises `Unreadable`."""
    rows = lines.removesuffix("\n").split("\n")
    if len(rows) > MOST_SIGNATURES:
        raise Unreadable(f"there are more than {MOST_SIGNATURES} signatures")
    return [_signature(row) for row in rows]


def cosigned_message(text: str, time: int) -> bytes:
    """What a witness signs that saw the checkpoint `text` at `time`, in seconds since 1970."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosignature_time(raw: bytes) -> int:
    """When a witness made a cosignature, in seconds since 1970."""
    return int.from_bytes(raw[:_TIME_BYTES], "big")


def _decoded(raw: bytes | str) -> str:
    if len(raw) > LONGEST_NOTE:
        raise Unreadable("this is too long for a signed note")
    try:
        note = raw.decode() if isinstance(raw, bytes) else raw.encode().decode()
    except UnicodeError:
        raise Unreadable("a signed note is UTF-8") from None
    if any(char < " " and char != "\n" for char in note):
        raise Unreadable("a signed note holds no control characters")
    return note


def _signature(row: str) -> Signature:
    name, space, encoded = row.removeprefix(_DASH).partition(" ")
    if not row.startswith(_DASH) or not space:
        raise Unreadable("a signature line is a dash, a name and base64")
    _check_name(name)
    raw = from_base64(encoded, "a signature")
    if len(raw) <= _ID_BYTES:
        raise Unreadable("a signature is shorter than its key's id")
    return Signature(name, raw[:_ID_BYTES], raw[_ID_BYTES:])


def _by_name_and_id(keys: Iterable[Key]) -> dict[tuple[str, bytes], Key]:
    known: dict[tuple[str, bytes], Key] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise Unreadable(f"two different keys have the name {key.name:.200} and the same id")
    return known


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise Unreadable(f"a key's name is not empty and holds neither spaces nor a plus: {name[:80]!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Unreadable("a key's name is UTF-8") from None
