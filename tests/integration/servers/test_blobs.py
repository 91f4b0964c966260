"""The blob store: what a folder and S3 have in common, and what is special to each."""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import obstore
import pytest

from ops.runtime.blobs import ASIDE, AT_ONCE, Blobs, KeptBlob, open_blobs
from ops.settings import load_settings
from pipeline.errors import BlobLost, BlobsAway
from schemas.blob import LARGEST, LARGEST_INLINE, Blob
from support.net.s3 import make_bucket, variables

BODY = os.urandom(LARGEST_INLINE + 1)
REFERENCE = f"sha256:{sha256(BODY).hexdigest()}"
UNKNOWN = "sha256:" + "0" * 64
NOW = datetime.now(UTC)
PATIENT = 60.0  # seconds for a call, however busy the machine is


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "blobs")
    for name, value in variables(request.getfixturevalue("s3")).items():
        monkeypatch.setenv(name, value)
    return make_bucket(request.getfixturevalue("s3"))


@pytest.fixture
def blobs(place: str) -> Blobs:
    return Blobs(place, PATIENT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


def lost(work: Callable[[], object]) -> str:
    with pytest.raises(BlobLost) as raised:
        work()
    return raised.value.kind


def kept(blobs: Blobs, *, aside: bool = False) -> list[str]:
    return sorted(each.key for each in blobs.stored(aside=aside))


def file_of(folder: Path, tenant: str = "acme", aside: str = "") -> Path:
    digest = REFERENCE.removeprefix("sha256:")
    return folder / aside / tenant / digest[:2] / digest[2:4] / digest


def test_a_large_body_is_kept_by_its_digest_and_a_small_one_stays_where_it_is(blobs: Blobs) -> None:
    small = b"x" * LARGEST_INLINE

    assert small is blobs.keep("acme", small)
    assert Blob(REFERENCE, len(BODY)) == blobs.keep("acme", BODY)
    assert BODY == blobs.get("acme", REFERENCE)
    assert ["acme/" + "/".join((REFERENCE[7:9], REFERENCE[9:11], REFERENCE[7:]))] == kept(blobs)


def test_what_was_put_twice_is_there_once(blobs: Blobs) -> None:
    assert blobs.put("acme", BODY) == blobs.put("acme", BODY)
    assert 1 == len(kept(blobs))
    assert BODY == blobs.get("acme", REFERENCE)


def test_each_tenant_has_its_own(blobs: Blobs) -> None:
    blobs.put("acme", BODY)

    assert "blob_missing" == lost(lambda: blobs.get("other", REFERENCE))
    assert (True, False) == (blobs.exists("acme", REFERENCE), blobs.exists("other", REFERENCE))


def test_what_is_not_there_or_no_reference_is_missing(blobs: Blobs) -> None:
    blobs.put("acme", BODY)

    for reference in (UNKNOWN, "", "s3://elsewhere", "sha256:../../../acme", REFERENCE[:-1]):
        assert "blob_missing" == lost(lambda reference=reference: blobs.get("acme", reference))


def test_a_blob_that_was_set_aside_is_still_found_and_comes_back_when_it_is_referred_to(blobs: Blobs) -> None:
    blobs.put("acme", BODY)
    (found,) = blobs.stored()
    blobs.set_aside(found)

    assert ([], [ASIDE + found.key]) == (kept(blobs), kept(blobs, aside=True))
    assert (BODY, True) == (blobs.get("acme", REFERENCE), blobs.exists("acme", REFERENCE))
    assert [] == kept(blobs)
    assert BODY == blobs.hold("acme", REFERENCE)
    assert [found.key] == kept(blobs)


def test_what_others_put_there_is_not_listed(blobs: Blobs) -> None:
    blobs.put("acme", BODY)
    (found,) = blobs.stored()
    for key in ("notes.txt", f"acme/{REFERENCE[7:]}", f"acme/00/00/{REFERENCE[7:]}", found.key + ".bak"):
        obstore.put(blobs._opened(), key, b"others'")

    assert [found.key] == kept(blobs)


def test_what_is_discarded_is_gone(blobs: Blobs) -> None:
    blobs.put("acme", BODY)
    (found,) = blobs.stored()
    blobs.set_aside(found)
    (aside,) = blobs.stored(aside=True)
    assert (found.tenant, found.reference, found.size) == (aside.tenant, aside.reference, aside.size)
    blobs.discard(aside)

    assert (None, []) == (blobs.look(aside), kept(blobs, aside=True))
    assert "blob_missing" == lost(lambda: blobs.get("acme", REFERENCE))
    blobs.discard(aside)  # again, as after a crash


def test_a_store_that_is_not_there_is_away_and_nothing_is_missing(s3: str, place: str, folder: Path) -> None:
    nowhere = Blobs("s3://no-such-bucket" if place.startswith("s3://") else str(folder / "nowhere"), PATIENT)

    for ask in (lambda: nowhere.get("acme", REFERENCE), lambda: nowhere.exists("acme", REFERENCE), lambda: [*nowhere.stored()]):
        with pytest.raises(BlobsAway):
            ask()


def test_a_server_that_does_not_answer_is_away_in_time(monkeypatch: pytest.MonkeyPatch, lateness: Callable[[], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "k")
        began = time.monotonic()
        with pytest.raises(BlobsAway):
            Blobs("s3://bucket", 0.5).put("acme", BODY)

    assert time.monotonic() - began < 3 + lateness()


def test_a_disk_that_hangs_is_away_in_time_for_everybody(folder: Path, lateness: Callable[[], float]) -> None:
    path = file_of(folder)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)  # opening it blocks until there is a writer
    blobs = Blobs(str(folder), 0.3)
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            blobs.get("acme", REFERENCE)
        except BlobsAway as error:
            ended.append(error)

    began = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(AT_ONCE + 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert AT_ONCE + 4 == len(ended)
    assert any("busy" in str(error) for error in ended)
    assert time.monotonic() - began < 3 + lateness()
    os.close(os.open(path, os.O_RDWR))  # unblocks the threads


def test_calls_that_get_no_thread_leave_the_store_usable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(str(folder), PATIENT)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(AT_ONCE + 1):
            with pytest.raises(BlobsAway, match="cannot put: can't start new thread"):
                blobs.put("acme", BODY)

    blobs.put("acme", BODY)
    assert BODY == blobs.get("acme", REFERENCE)


def test_a_body_and_the_folders_to_it_are_on_the_disk_before_anybody_relies_on_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", noted)
    Blobs(str(folder), PATIENT).put("acme", BODY)

    path = file_of(folder)
    assert [folder.parent, path, *path.parents[:4]] == synced
    assert folder == synced[-1]
    assert 0o700 == folder.stat().st_mode & 0o777


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(BODY[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1])),
        lambda path: os.truncate(path, LARGEST + 1),
    ],
    ids=["truncated", "emptied", "one bit", "beyond all bounds"],
)
def test_what_was_damaged_is_named_and_mended_by_putting_it_again(folder: Path, damage: Callable[[Path], object]) -> None:
    blobs = Blobs(str(folder), PATIENT)
    blobs.put("acme", BODY)
    damage(file_of(folder))

    assert "blob_altered" == lost(lambda: blobs.get("acme", REFERENCE))
    assert "blob_altered" == lost(lambda: blobs.hold("acme", REFERENCE))
    blobs.put("acme", BODY)
    assert BODY == blobs.get("acme", REFERENCE)


def test_what_is_old_is_made_young_by_putting_and_by_holding_but_not_by_reading(folder: Path) -> None:
    blobs, long_ago = Blobs(str(folder), PATIENT), time.time() - 86_400

    def age_after(use: Callable[[], object]) -> timedelta:
        blobs.put("acme", BODY)
        os.utime(file_of(folder), (long_ago, long_ago))
        use()
        (found,) = blobs.stored()
        return datetime.now(UTC) - found.put_at

    assert age_after(lambda: blobs.get("acme", REFERENCE)) > timedelta(hours=23)
    assert age_after(lambda: blobs.hold("acme", REFERENCE)) < timedelta(minutes=1)
    assert age_after(lambda: blobs.put("acme", BODY)) < timedelta(minutes=1)


def test_what_a_dead_writer_left_half_written_is_no_blob_and_is_cleared_when_it_is_old(folder: Path) -> None:
    blobs = Blobs(str(folder), PATIENT)
    blobs.put("acme", BODY)
    debris = file_of(folder).with_name(f"{REFERENCE[7:]}#1")
    debris.write_bytes(BODY[:1000])

    assert [f"acme/{REFERENCE[7:9]}/{REFERENCE[9:11]}/{REFERENCE[7:]}"] == kept(blobs)
    assert 0 == blobs.clear_debris(NOW - timedelta(days=1))
    assert 1 == blobs.clear_debris(datetime.now(UTC) + timedelta(seconds=1))
    assert (False, True) == (debris.exists(), file_of(folder).exists())


def test_a_file_that_its_writer_renames_while_debris_is_cleared_is_no_debris(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "acme").mkdir(parents=True)
    unfinished = folder / "acme" / "name#1"
    unfinished.write_bytes(BODY)
    is_file = Path.is_file

    def then_renamed(path: Path) -> bool:
        found = is_file(path)
        path.replace(folder / "acme" / "name")
        return found

    monkeypatch.setattr(Path, "is_file", then_renamed)

    assert 0 == Blobs(str(folder), PATIENT).clear_debris(datetime.now(UTC) + timedelta(days=1))
    assert (folder / "acme" / "name").exists()


def test_a_folder_that_cannot_be_written_to_is_away() -> None:
    with pytest.raises(BlobsAway, match="cannot put"):
        Blobs("/dev/null/blobs").put("acme", BODY)


def test_the_store_is_where_the_settings_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAXSEAL_BLOBS", str(folder))
    open_blobs(load_settings()).put("acme", BODY)

    assert BODY == file_of(folder).read_bytes()


def test_a_blob_knows_whose_it_is_wherever_it_lies() -> None:
    assert ("acme", "sha256:f00") == (KeptBlob("acme/f0/0/f00", 1, NOW).tenant, KeptBlob("acme/f0/0/f00", 1, NOW).reference)
    assert "acme" == KeptBlob(f"{ASIDE}acme/f0/0/f00", 1, NOW).tenant
