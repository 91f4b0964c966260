"""Signed notes, checkpoints and cosignatures: published vectors, and only our error for anything else."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Unproven, Unreadable
from pipeline.ledger.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from pipeline.ledger.cosignature import cosign, read_conflict, read_cosignatures
from pipeline.ledger.merkle import EMPTY_ROOT
from pipeline.ledger.notes import (
    COSIGNATURE,
    Key,
    Signer,
    cosignature_time,
    new_private,
    open_note,
    read_vkey,
    sign,
    split_note,
)

EXAMPLE_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_PRIVATE = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NEUMANN_LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH_LINE = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
SIGSUM = "sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69"
SIGSUM_NOTE = f"""{SIGSUM}
10
HA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} gJ2ho0n8F8olcerUF1FFdv235A/5as/coWrpLrtE7ovMeP5whgwouYExowG/lTznxu6OUGjjt5yJQ6bXtTcf718MqAQ=
"""
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
WITNESS_LINE = (
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
LEDGER_VKEY = "ledger.example/t_01+de2f71dd+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
LEDGER_TEXT = "ledger.example/t_01\n2\n2ZZgU+l5g/ppRl4zNaQkzCqrNTMpoQAuN9N88VKh3no=\n"
LEDGER_LINE = (
    "— ledger.example/t_01 3i9x3dEitkDk/H0EPJt+QkBgdytQVlxQ3afBfV0YRpq/oH056RsMjUUBnDFP78tyXrdU04R+M3TaujkQFtKg8f8aPAA=\n"
)
SIGNER = Signer("log.example/acme", bytes(range(32)))


def keys(*vkeys: str) -> list[Key]:
    return [read_vkey(each) for each in vkeys]


def test_the_specification_s_example_opens() -> None:
    assert ("This is an example message.\n", ("example.com/foo",)) == open_note(EXAMPLE.encode(), keys(EXAMPLE_VKEY))
    assert EXAMPLE_VKEY == read_vkey(EXAMPLE_VKEY).vkey


def test_go_s_note_opens_and_is_made_again_byte_by_byte() -> None:
    from base64 import b64decode

    signer = Signer("PeterNeumann", b64decode(NEUMANN_PRIVATE)[1:])

    assert NEUMANN == signer.vkey
    assert f"{TEXT}\n{NEUMANN_LINE}" == sign(TEXT, [signer])
    both = f"{TEXT}\n{NEUMANN_LINE}{ENOCH_LINE}"
    assert (TEXT, ("PeterNeumann", "EnochRoot")) == open_note(both, keys(ENOCH, NEUMANN))
    assert (TEXT, ("EnochRoot",)) == open_note(both, keys(ENOCH))
    assert (TEXT, ("EnochRoot",)) == open_note(f"{TEXT}\n{ENOCH_LINE}{ENOCH_LINE}", keys(ENOCH, ENOCH))


def test_the_published_checkpoint_opens_and_is_made_again() -> None:
    signer = Signer(SIGSUM, b"\x11" + bytes(31))

    checkpoint, names = open_checkpoint(SIGSUM_NOTE, [signer.key])

    assert ("66e0b858e462a609e66fe71370c816d8846ff103d5499a22a7fec37fdbc424a7", "809da1a3") == (
        signer.key.public.hex(),
        signer.key.id.hex(),
    )
    assert (SIGSUM, 10, "1c0e47" + "00" * 29, (SIGSUM,)) == (checkpoint.origin, checkpoint.size, checkpoint.root.hex(), names)
    assert SIGSUM_NOTE == sign(checkpoint.text, [signer])


def test_a_checkpoint_of_a_ledger_is_made_as_computed_elsewhere() -> None:
    signer = Signer("ledger.example/t_01", bytes(32))
    root = bytes.fromhex("d9966053e97983fa69465e3335a424cc2aab353329a1002e37d37cf152a1de7a")

    assert LEDGER_VKEY == signer.vkey
    assert LEDGER_TEXT == Checkpoint("ledger.example/t_01", 2, root).text
    assert f"{LEDGER_TEXT}\n{LEDGER_LINE}" == sign(LEDGER_TEXT, [signer])


def test_the_published_cosignature_is_read() -> None:
    text, signatures = split_note(f"{SOFA}\n{WITNESS_LINE}")

    assert (SOFA, [("witness.example.com/w1", "8d66cf3f")]) == (text, [(each.name, each.key_id.hex()) for each in signatures])
    assert (1679315147, 72) == (cosignature_time(signatures[0].raw), len(signatures[0].raw))
    assert 20852163 == read_checkpoint(text).size


@pytest.mark.parametrize("end", range(len(NEUMANN)))
def test_no_other_text_than_the_verifier_key_is_one(end) -> None:
    increased = bytearray(NEUMANN.encode())
    increased[end] = (increased[end] + 1) % 256

    for wrong in (NEUMANN[:end], increased.decode(errors="replace")):
        with pytest.raises(Unreadable):
            read_vkey(wrong)


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        NEUMANN.replace("c74f20a3", "C74F20A3"),
        f" {NEUMANN}",
        f"{NEUMANN}\n",
        "",
        "++",
        "\ud800+00000000+AAAA",
    ],
)
def test_a_wrong_verifier_key_is_refused(vkey) -> None:
    with pytest.raises(Unreadable):
        read_vkey(vkey)


@pytest.mark.parametrize(
    "note",
    {
        "control": f"{TEXT}\x01\n{NEUMANN_LINE}",
        "tab": f"a\tb\n\n{NEUMANN_LINE}",
        "no last line end": f"{TEXT}\n{NEUMANN_LINE}"[:-1],
        "space in a name": f"{TEXT}\n— Peter Neumann x08go/ZJkuBS9UG/\n",
        "no dash": f"{TEXT}\nPeterNeumann x08go/ZJkuBS9UG/\n",
        "no signature": f"{TEXT}\n— PeterNeumann \n",
        "short signature": f"{TEXT}\n— PeterNeumann x08goA==\n",
        "other base64": f"{TEXT}\n{NEUMANN_LINE}— other AAAAAAB=\n",
        "plus in a name": f"{TEXT}\n— Peter+Neumann x08go/ZJkuBS9UG/\n",
        "101 signatures": f"{TEXT}\n{NEUMANN_LINE * 101}",
        "no blank line": f"{TEXT}{NEUMANN_LINE}",
        "no signatures": f"{TEXT}\n",
        "nothing": "",
        "lone surrogate": f"\ud800\n\n{NEUMANN_LINE}",
        "endless": "a" * 1_000_001,
    }.values(),
)
def test_a_malformed_note_is_refused(note) -> None:
    with pytest.raises(Unreadable) as refused:
        open_note(note, keys(NEUMANN))

    assert refused.type is Unreadable


def test_a_note_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Unreadable, match="UTF-8"):
        open_note(f"{TEXT}\n{NEUMANN_LINE}".encode().replace(b"y", b"\xff", 1), keys(NEUMANN))


def test_a_wrong_signature_of_a_known_key_is_not_outweighed_by_a_right_one() -> None:
    wrong = NEUMANN_LINE.replace("BwJnAM=", "BwJnAA=")

    with pytest.raises(Unproven, match="PeterNeumann"):
        open_note(f"{TEXT}\n{ENOCH_LINE}{wrong}", keys(NEUMANN, ENOCH))
    assert (TEXT, ("EnochRoot",)) == open_note(f"{TEXT}\n{ENOCH_LINE}{wrong}", keys(ENOCH))


def test_a_note_of_unknown_keys_only_shows_nothing() -> None:
    for known in ([], keys(EXAMPLE_VKEY)):
        with pytest.raises(Unproven, match="no key"):
            open_note(f"{TEXT}\n{NEUMANN_LINE}", known)


def test_two_keys_with_the_same_name_and_id_are_ambiguous(monkeypatch) -> None:
    monkeypatch.setattr(Key, "id", b"same")

    with pytest.raises(Unreadable, match="two different keys"):
        open_note(EXAMPLE, [Key("example.com/foo", 1, bytes(32)), Key("example.com/foo", 1, b"\x01" * 32)])


def test_what_cannot_be_a_note_is_not_signed() -> None:
    for text, signers in (("no line end", [SIGNER]), ("\x00\n", [SIGNER]), ("text\n", []), ("t\n", [Signer("a b", bytes(32))])):
        with pytest.raises(Unreadable):
            sign(text, signers)


def test_a_note_has_as_many_signatures_as_signers() -> None:
    other = Signer("log.example/acme", new_private())
    note = sign("text\n", [SIGNER, other])

    assert ("text\n", ("log.example/acme",) * 2) == open_note(note, [SIGNER.key, other.key])
    assert ("text\n", ("log.example/acme",)) == open_note(note, [other.key])


@pytest.mark.parametrize(
    "text",
    [
        "log\n1\n",
        "log\n1\nAAAA\n",
        "log\n01\n" + "A" * 43 + "=\n",
        "log\n+1\n" + "A" * 43 + "=\n",
        "log\n\u0661\n" + "A" * 43 + "=\n",
        "log\n9223372036854775808\n" + "A" * 43 + "=\n",
        "log\n1\n" + "A" * 42 + "B=\n",
        "log\n1\n" + "A" * 43 + "=",
        "log\n1\n" + "A" * 43 + "=\nextension\n",
        "\n1\n" + "A" * 43 + "=\n",
        "log\n0\n" + "A" * 43 + "=\n",
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(text) -> None:
    with pytest.raises(Unreadable):
        read_checkpoint(text)


def test_a_checkpoint_needs_its_own_log_s_signature() -> None:
    other = Signer("log.example/other", new_private())
    text = Checkpoint("log.example/acme", 0, EMPTY_ROOT).text

    with pytest.raises(Unproven, match="of the log"):
        open_checkpoint(sign(text, [other]), [SIGNER.key, other.key])
    assert 0 == open_checkpoint(sign(text, [other, SIGNER]), [SIGNER.key])[0].size


def test_a_witness_s_answer_is_verified_and_its_time_told() -> None:
    note, private = sign(SOFA, [SIGNER]), new_private()
    line = cosign("witness.example/w1", private, note, 1_700_000_000)
    key = Key("witness.example/w1", COSIGNATURE, Signer("", private).key.public)

    told = read_cosignatures(note, (WITNESS_LINE + line).encode(), [key, SIGNER.key])

    assert [("witness.example/w1", 1_700_000_000, line)] == [(each.witness, each.time, each.line) for each in told]
    assert (SOFA, ("log.example/acme", "witness.example/w1")) == open_note(note + line, [key, SIGNER.key])
    assert key == read_vkey(key.vkey)


@pytest.mark.parametrize("answer", [b"", b"\xff\n", b"200 OK\n", WITNESS_LINE.encode(), WITNESS_LINE.encode()[:-1]])
def test_an_answer_that_no_known_witness_signed_is_refused(answer) -> None:
    with pytest.raises(Unreadable):
        read_cosignatures(sign(SOFA, [SIGNER]), answer, [Key("witness.example.com/w1", COSIGNATURE, bytes(32))])


def test_a_cosignature_of_another_checkpoint_or_time_is_wrong() -> None:
    note, private = sign(SOFA, [SIGNER]), new_private()
    key = Key("w", COSIGNATURE, Signer("", private).key.public)
    for time, of in ((2**63, note), (5, sign(SOFA.replace("20852163", "20852164"), [SIGNER]))):
        with pytest.raises(Unproven):
            read_cosignatures(note, cosign("w", private, of, time).encode(), [key])


def test_the_size_that_a_witness_knows_is_read() -> None:
    assert 20852014 == read_conflict(b"20852014\n")
    for wrong in (b"", b"5", b"05\n", b"-1\n", b"5\n5\n", b"\xb2\n", b"9" * 30 + b"\n"):
        with pytest.raises(Unreadable):
            read_conflict(wrong)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_garbage_is_refused_with_our_error_only(garbage) -> None:
    for read in (
        lambda: open_note(garbage, keys(NEUMANN)),
        lambda: open_note(TEXT.encode() + b"\n" + garbage, keys(NEUMANN)),
        lambda: read_checkpoint(garbage.decode(errors="replace")),
        lambda: read_vkey(garbage.decode(errors="replace")),
        lambda: read_cosignatures(EXAMPLE, garbage, [Key("w", COSIGNATURE, bytes(32))]),
        lambda: read_conflict(garbage),
    ):
        with suppress(Unreadable):
            read()


@given(st.integers(0, len(EXAMPLE.encode()) - 1), st.integers(1, 255))
def test_no_byte_of_a_note_can_be_changed_unseen(position, flip) -> None:
    raw = bytearray(EXAMPLE.encode())
    raw[position] ^= flip

    with pytest.raises(Unreadable):
        open_note(bytes(raw), keys(EXAMPLE_VKEY))
