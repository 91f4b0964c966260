"""The kinds of anchors: files that are written once, time stamps, witnesses. None needs a database."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.errors import Misconfigured, PlaceAway
from pipeline.ledger.checkpoint import Checkpoint
from pipeline.ledger.cosignature import cosign
from pipeline.ledger.judge import Outside
from pipeline.ledger.merkle import leaf_hash, root_of
from pipeline.ledger.notes import Signer, new_private, open_note, sign
from pipeline.store.log.checkpoints import OpenLog
from schemas.config.anchors import AnchorPlace, read_anchors
from support.ledger.logs import published
from support.net.tsa import time_stamping
from support.net.witness import Witness, served
from workers.sealer import anchoring
from workers.sealer.anchor import Contradicted, Disputed, Known, NotAnchored
from workers.sealer.time_stamps import TimeStamps
from workers.sealer.witnesses import Witness as WitnessAnchor
from workers.sealer.write_once import WriteOnce

ENTRIES = [b"entry %d" % number for number in range(2000)]
ORIGIN = "ledger.example/acme"
SIGNER = Signer(ORIGIN, new_private())


def known(size: int, anchored: int = 0, entries: list[bytes] = ENTRIES) -> Known:
    log = OpenLog(1, "acme", 1, size, b"")
    files = published(entries, [size])
    checkpoint = Checkpoint(ORIGIN, size, root_of(map(leaf_hash, entries[:size])))
    return Known(log, checkpoint, sign(checkpoint.text, [SIGNER]), anchored, lambda path: files[path])


def seen(place: str, size: int) -> Outside:
    return Outside(place, size, known(size).published.root)


FORKED = [*ENTRIES[:100], *(b"other %d" % number for number in range(1900))]


def test_a_file_is_written_once_and_never_again(tmp_path: Path) -> None:
    anchor = WriteOnce(str(tmp_path))
    assert anchor.look(known(5)) is None
    for size in (9, 300, 1200):
        assert (b"", []) == anchor.take(known(size))
        assert (b"", []) == anchor.take(known(size)), "as after a crash"

    path = tmp_path / "acme" / "r1" / "00000000000000000300"
    assert (known(300).note, 0o444) == (path.read_text(), path.stat().st_mode & 0o777)
    assert seen(str(tmp_path), 1200) == anchor.look(known(5))
    assert seen(str(tmp_path), 1200) == anchor.look(known(5, anchored=1200))
    with pytest.raises(Contradicted):
        anchor.take(known(300, entries=FORKED))
    assert known(300).note == path.read_text()
    (tmp_path / "acme" / "r1" / "00000000000000001300").write_text("what is this")
    with pytest.raises(NotAnchored, match="no checkpoint"):
        anchor.look(known(5))


def test_an_authority_stamps_a_checkpoint_and_openssl_verifies_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    with time_stamping(tmp_path / "real") as authority, time_stamping(tmp_path / "other") as other:
        checkpoint = known(300)
        receipt, lines = TimeStamps(authority.url, str(authority.certificates)).take(checkpoint)

        assert [] == lines
        assert "Verification: OK" in authority.verify(checkpoint.note.encode(), receipt)
        with pytest.raises(NotAnchored, match="does not verify"):
            TimeStamps(authority.url, str(other.certificates)).take(checkpoint)
        with pytest.raises(NotAnchored, match="does not verify"):
            replaying(authority, receipt).take(checkpoint)
    with pytest.raises(Misconfigured, match="PEM"):
        TimeStamps("http://tsa.example", str(tmp_path / "nothing"))


def replaying(authority, receipt: bytes) -> TimeStamps:
    """An authority that answers with an old stamp of the same note."""
    authority.stamp = lambda _query: receipt
    return TimeStamps(authority.url, str(authority.certificates))


def test_a_witness_cosigns_what_continues_and_tells_what_it_knows() -> None:
    with served(Witness()) as witness:
        witness.trust(SIGNER.key)
        anchor = WitnessAnchor(witness.url, witness.key.vkey)
        for size in (7, 300, 1200):
            receipt, (line,) = anchor.take(known(size))
            assert (witness.name,) == open_note(known(size).note + line, [witness.key])[1]
            assert receipt.decode() == line
        assert [200, 200, 200] == witness.asked

        again = WitnessAnchor(witness.url, witness.key.vkey)  # a restarted process does not know its size
        assert seen(witness.url, 1200) == again.look(known(1200))
        again = WitnessAnchor(witness.url, witness.key.vkey)
        again.take(known(1300))
        assert [409, 200] == witness.asked[-2:]
        restored = WitnessAnchor(witness.url, witness.key.vkey)
        for ask in (restored.look, restored.take):
            with pytest.raises(Contradicted) as raised:
                ask(known(1200))
            assert seen(witness.url, 1300) == raised.value.seen, "it shows what it has signed"
        assert restored.look(known(1400)) is None, "it has not seen the newest one yet"


def test_what_a_witness_only_says_is_disputed_and_what_it_has_signed_is_shown() -> None:
    with served(Witness()) as witness:
        witness.trust(SIGNER.key)
        anchor = WitnessAnchor(witness.url, witness.key.vkey)
        anchor.take(known(300))
        own = dict(witness.shown)
        ((path, shown),) = own.items()
        with pytest.raises(Disputed, match="does not continue 300") as raised:
            anchor.take(known(1400, entries=FORKED))
        assert seen(witness.url, 300) == raised.value.seen, "by which the log is judged"
        with pytest.raises(Contradicted):
            anchor.look(known(300, entries=FORKED))

        witness.seen[ORIGIN] = (1300, b"x" * 32)  # somebody on the way answers in its place
        by_another = Witness(witness.name)
        forged = known(1300, entries=FORKED).note
        for found in (
            {},
            {path: forged},
            {path: forged + cosign(by_another.name, by_another.private, forged, 1)},
            {path: shown.replace(ORIGIN, f"{ORIGIN}2")},
            {path: "what is this"},
            {path: shown},
        ):
            witness.shown = found
            for ask in (anchor.look, anchor.take):
                with pytest.raises(Disputed, match="cosigned size 1300, and 1200 is published") as raised:
                    ask(known(1200))
                assert (seen(witness.url, 300) if found == own else None) == raised.value.seen
        witness.shown = {path: forged + cosign(witness.name, witness.private, forged, 1)}
        with pytest.raises(Contradicted):
            anchor.take(known(1200))


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_witness_that_refuses_has_not_cosigned(status: int) -> None:
    with served(Witness()) as witness:
        anchor = WitnessAnchor(witness.url, witness.key.vkey)
        with pytest.raises(NotAnchored, match="give it the log's vkey"):
            anchor.take(known(7))
        witness.fail = status
        with pytest.raises(NotAnchored, match=str(status)):
            anchor.take(known(7))


def test_a_cosignature_of_another_key_is_none() -> None:
    with served(Witness()) as witness:
        witness.trust(SIGNER.key)
        other = Witness(witness.name)
        with pytest.raises(NotAnchored, match="no valid cosignature"):
            WitnessAnchor(witness.url, other.key.vkey).take(known(7))
    with pytest.raises(Misconfigured, match="not a witness's"):
        WitnessAnchor("http://witness.example", SIGNER.vkey)


@pytest.mark.parametrize("kind", ["witness", "rfc3161"])
def test_a_place_that_does_not_answer_is_given_up_in_time(kind: str, tmp_path: Path, lateness: Callable[[], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if kind == "witness":
            anchor = WitnessAnchor(url, Witness().key.vkey, 0.3)
        else:
            with time_stamping(tmp_path) as authority:
                anchor = TimeStamps(url, str(authority.certificates), 0.3)
        began = time.monotonic()
        with pytest.raises(PlaceAway):
            anchor.take(known(7))
        assert time.monotonic() - began < 2 + lateness()


def test_a_place_that_hangs_holds_up_the_first_sealing_of_many_logs_no_longer_than_of_two(
    monkeypatch: pytest.MonkeyPatch, lateness: Callable[[], float]
) -> None:
    go = threading.Event()

    class Hanging:
        away = False
        look = turn = staticmethod(lambda *_: go.wait(30))

    monkeypatch.setattr(anchoring, "FIRST_LOOK", 0.2)
    monkeypatch.setattr(anchoring, "LATE", 0.4)
    anchorings = anchoring.Anchorings([Hanging()])
    began = time.monotonic()
    for number in range(30):
        anchorings.first_look(OpenLog(number, "acme", 1, 1, b""), None)
    took = time.monotonic() - began
    go.set()
    anchorings.close()

    assert took < 3 + lateness()


VKEY = Witness().key.vkey


def test_the_setting_names_places_and_what_to_verify_them_with() -> None:
    text = (
        f"/mnt/worm s3://bucket/a#every=5m\n rfc3161+https://tsa.example/tsr#ca=/ca.pem witness+https://w.example/#vkey={VKEY}"
    )

    assert (
        AnchorPlace("folder", "/mnt/worm", 60.0),
        AnchorPlace("s3", "s3://bucket/a", 300.0),
        AnchorPlace("rfc3161", "https://tsa.example/tsr", 3600.0, "/ca.pem"),
        AnchorPlace("witness", "https://w.example/", 60.0, VKEY),
    ) == read_anchors(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("worm", "none of"),
        ("https://tsa.example", "none of"),
        ("rfc3161+ftp://tsa.example", "none of"),
        ("rfc3161+https://tsa.example", "add #ca"),
        ("witness+https://w.example", "add #vkey"),
        ("/worm#ca=x", "unknown option ca"),
        ("/worm#every=often", "must be a duration"),
        ("/worm /worm", "twice"),
    ],
)
def test_a_place_that_cannot_be_meant_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_anchors(text)
