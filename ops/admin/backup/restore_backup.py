"""Restores a backup into a new data folder, verifies the ledger there, and begins a new origin of each tenant's log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from ops.admin.backup import backup_manifest, base_backup, blob_copies, unpacking
from ops.admin.backup.backup_manifest import BLOBS, DATABASE, PUBLISHED, Manifest
from ops.admin.backup.replaying import Replayed, Target, check_readable, replayable
from ops.admin.backup.verify_backup import part_faults
from ops.admin.bulk import Act, noted
from ops.admin.log import new_incarnation
from ops.admin.log.new_incarnation import Successor
from ops.admin.read_session import open_engine, snapshot
from ops.admin.verifying.verify_ledger import Report, Wanted, verification
from ops.errors import OpsError
from ops.migrate import migrate
from ops.runtime.blobs import Blobs
from ops.runtime.schema_check import known
from ops.servers.accounts import own_file
from ops.servers.lock import sole_owner
from ops.servers.restored_postgres import folder_for, restored_postgres
from ops.servers.state_file import check_path, recall
from ops.settings import Settings
from ops.system.prepare import ORIGIN, blob_place, published_place
from ops.system.unfinished_restore import MARK
from pipeline.store.admin import blob_references, queries
from pipeline.store.log import incarnations
from schemas.access import By
from schemas.ledger.fault import Verified

Say = Callable[[str], None]
_NAMED: Final = 20  # missing blobs
_UNNAMED: Final = "the backup names no key: its log and its secrets need WAXSEAL_KEYS or WAXSEAL_KEYS_FILE"


@dataclass(frozen=True, slots=True)
class Planned:
    """A restore that can be done: of which backup, where to, with which settings."""

    folder: Path
    data: Path
    manifest: Manifest
    settings: Settings
    unpacks_logs: bool  # published logs; else they are where a setting says
    replayed: Replayed | None = None  # from an archive; None: it is restored as it was taken


@dataclass(frozen=True, slots=True)
class Restored:
    """What the restored ledger was found to be, the logs that have begun, and when the last transaction was, if known."""

    verified: Verified
    logs: Sequence[Successor]
    last: str | None


def plan(settings: Settings, folder: Path, data: Path, target: Target | None = None) -> Planned:
    """Check whether it can be done, and change nothing. Raises `OpsError` that says why it cannot."""
    manifest = backup_manifest.read(folder)
    check_path(data)
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise OpsError(f"{data} is not empty: a restore makes a new data folder, so name one that does not exist")
    if manifest.schema not in known():
        raise OpsError(
            f"the backup's schema is at {manifest.schema}, this waxseal knows only {known()[-1]}: use a newer waxseal"
        )
    for name in ("pg_verifybackup", "postgres"):
        base_backup.program(manifest.postgres, name)
    _check_keys(settings, manifest)
    place = settings.log_files or manifest.log_files
    if not settings.log_files and not (folder / PUBLISHED).exists() and place:
        raise OpsError(
            f"the logs were published at {place}, and are not in the backup: set WAXSEAL_LOG_FILES to where they are"
        )
    data = data.absolute()
    files = {"blobs": blob_place(data, settings), "log_files": published_place(data, settings)}
    origin = settings.log_origin or manifest.log_origin or ORIGIN
    unpacks = not settings.log_files and (folder / PUBLISHED).exists()
    replayed = None if target is None else replayable(manifest, target)
    settings = settings.model_copy(update={**files, "log_origin": origin})
    return Planned(folder.absolute(), data, manifest, settings, unpacks, replayed)


def restore(planned: Planned, who: By, report: Report, say: Say, show: blob_copies.Show) -> Restored:
    """Do it. Until it has ended `waxseal up` refuses the folder, and another restore needs an empty one. Raises `OpsError`."""
    data, folder, manifest = planned.data, planned.folder, planned.manifest
    with sole_owner(data):
        own_file(data / MARK, f"{folder}\n", None)
        memory = recall(data)
        say("checking the backup's files")
        for fault in part_faults(folder, manifest):
            raise OpsError(f"{folder}: {fault}: use another backup")
        say("unpacking and checking the database")
        base_backup.unpack(folder / DATABASE, folder_for(memory))
        base_backup.verify(manifest.postgres, folder_for(memory))
        say("copying the blobs")
        copied = blob_copies.copy_back(folder / BLOBS, Blobs(planned.settings.blobs), show)
        _keep_files(planned)
        say("replaying the write-ahead log")
        if planned.replayed is not None:
            check_readable(planned.replayed, memory.account("postgres"))
        recovery = planned.replayed.configuration if planned.replayed else None
        with restored_postgres(memory, manifest.postgres, manifest.database, recovery) as recovered:
            settings = planned.settings.model_copy(update={"database_url": recovered.database_url})
            migrate(recovered.database_url, say)
            if planned.replayed is not None:
                _tell_missing(settings, say)
            verified, logs = _begin(settings, planned, who, report, say)
        (data / MARK).unlink()
    for missing in copied.faults:
        say(missing)
    return Restored(verified, logs, recovered.last)


def _tell_missing(settings: Settings, say: Say) -> None:
    """Name the blobs that the restored rows refer to and that are not there, as those stored after the backup."""
    store, missing = Blobs(settings.blobs), 0
    with open_engine(settings) as engine, snapshot(engine) as conn:
        for tenant, reference in blob_references.every(conn):
            if not store.exists(tenant, reference):
                missing += 1
                if missing <= _NAMED:
                    say(f"{tenant}: the blob {reference} is not in the store")
    if missing:
        say(f"blobs that are missing: {missing}. Copy them from the old store, or from a later backup, to {settings.blobs}")


def _begin(settings: Settings, planned: Planned, who: By, report: Report, say: Say) -> tuple[Verified, Sequence[Successor]]:
    """Verify what is there, and begin the logs."""
    manifest, until = planned.manifest, {"until": planned.replayed.shown} if planned.replayed else {}
    say("verifying the ledger")
    with verification(settings, report) as ledger:
        verified = ledger.all_of(Wanted(), lambda _entries: None)
    logs, act = [], Act(who, "restore", {"backup": manifest.began, "wal": manifest.wal["end"], **until})
    with open_engine(settings) as engine, noted(engine, act, 1) as tally:
        for tenant in _with_log(engine):
            say(f"beginning a new log of {tenant}")
            successor = new_incarnation.plan(engine, settings, tenant)
            new_incarnation.start(engine, settings, successor, who)
            logs.append(successor)
        tally.done = 1
    return verified, logs


def _with_log(engine: Engine) -> list[str]:
    with snapshot(engine) as conn:
        return [tenant for tenant in queries.tenants(conn) if incarnations.newest(conn, tenant) is not None]


def _check_keys(settings: Settings, manifest: Manifest) -> None:
    given = {backup_manifest.key_name(key) for key in settings.fernet_keys()}
    if not given and not manifest.keys:
        raise OpsError(_UNNAMED)
    if lacking := [name for name in manifest.keys if name not in given]:
        raise OpsError(
            f"the backup needs the keys {', '.join(lacking)}, which are not given: set WAXSEAL_KEYS_FILE to a file with them,"
            " or WAXSEAL_KEYS"
        )


def _keep_files(planned: Planned) -> None:
    """The published logs, unless a setting says where they are; and the keys, if they are in a file, where `up` finds them."""
    settings = planned.settings
    if planned.unpacks_logs:
        unpacking.unpack(planned.folder / PUBLISHED, Path(settings.log_files))
    if settings.keys_file is not None and not settings.keys:
        own_file(planned.data / "keys", settings.keys_file.read_text(), None)
