"""Takes a backup of a running system: the database first, then the blobs, so that every row's blob is in it."""

import fcntl
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree

from sqlalchemy import Engine

from ops.admin.backup import backup_manifest, base_backup, blob_copies
from ops.admin.backup.backup_manifest import BLOB_LIST, BLOBS, DATABASE, DEFINITIONS, PUBLISHED, Manifest
from ops.admin.read_session import open_engine, snapshot
from ops.errors import OpsError
from ops.runtime.blobs import open_blobs
from ops.runtime.durable_files import flush, flush_folder, make_folders, replace_durably
from ops.servers.accounts import own_file
from ops.settings import Settings
from pipeline.store.admin import blob_references, schema_version, server_facts
from pipeline.store.admin.server_facts import Server

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to put the backup, the backup before it if there is one, and the broker's definitions."""

    folder: Path
    before: Path | None
    definitions: Mapping[str, object]


def take(settings: Settings, wanted: Wanted, say: Say, show: blob_copies.Show) -> tuple[Manifest, blob_copies.Copied]:
    """Take it. The folder has its name only when all of it is on disk; a failed one leaves nothing. Raises `OpsError`."""
    folder = wanted.folder.absolute()
    if folder.exists():
        raise OpsError(f"{folder} exists: each backup has a folder of its own, so name a new one")
    if wanted.before is not None:
        backup_manifest.read(wanted.before)
    with open_engine(settings) as engine:
        server = _fit(engine)
        base_backup.program(str(server.version), "pg_basebackup")
        with _unfinished(folder) as partial:
            manifest, copied = _fill(settings, engine, server, wanted, partial, say, show)
            replace_durably(partial, folder)
    return manifest, copied


def _fit(engine: Engine) -> Server:
    """The server, if this login can back it up."""
    with snapshot(engine) as conn:
        server = server_facts.server(conn)
    if not server.may_replicate:
        raise OpsError(
            f"the login {server.login} may not copy the database: use the server's superuser, or a login that may replicate and"
            " read all (CREATE ROLE waxseal_backup LOGIN REPLICATION PASSWORD '…' IN ROLE pg_read_all_data)"
        )
    if server.tablespaces:
        raise OpsError(f"the tablespaces {', '.join(server.tablespaces)} would not be in the backup: move what is in them back")
    return server


def _fill(
    settings: Settings, engine: Engine, server: Server, wanted: Wanted, partial: Path, say: Say, show: blob_copies.Show
) -> tuple[Manifest, blob_copies.Copied]:
    began = datetime.now(UTC)
    say("copying the database")
    wal = base_backup.take(settings.database_url, str(server.version), partial / DATABASE)
    with snapshot(engine) as conn:  # what it refers to was stored before, so the store has it
        ended = server_facts.now(conn)
        schema = (schema_version.found(conn).versions or [""])[0]
        needed = list(blob_references.every(conn))
    say("copying the blobs")
    before = wanted.before / BLOBS if wanted.before is not None else None
    copied = blob_copies.copy_all(open_blobs(settings), needed, partial / BLOBS, before, show)
    own_file(partial / DEFINITIONS, json.dumps(wanted.definitions, indent=1) + "\n", None)
    _pack_published(settings.log_files, partial / PUBLISHED)
    manifest = Manifest(
        waxseal=version("waxseal"),
        schema=schema,
        postgres=str(server.version),
        database=server.database,
        began=began.isoformat(),
        ended=datetime.now(UTC).isoformat(),
        wal={
            **wal,
            "ended": ended.isoformat(),
            "system": server.system,
            "segment_bytes": server.segment_bytes,
            "archive": server.archive,
        },
        keys=[backup_manifest.key_name(key) for key in settings.fernet_keys()],
        log_origin=settings.log_origin,
        log_files=settings.log_files,
        blobs=copied.count,
        blob_bytes=copied.size,
        faults=copied.faults,
        parts=_parts(partial),
    )
    backup_manifest.write(partial, manifest)
    return manifest, copied


def _parts(partial: Path) -> dict[str, dict[str, object]]:
    files = [*sorted((partial / DATABASE).iterdir()), partial / BLOB_LIST, partial / DEFINITIONS, partial / PUBLISHED]
    return {str(path.relative_to(partial)): backup_manifest.part_of(path) for path in files if path.exists()}


def _pack_published(place: str, path: Path) -> None:
    """Pack the published logs if they are in a folder; a bucket is not on this machine, and keeps them itself."""
    if not place or place.startswith("s3://"):
        return
    with tarfile.open(path, "x:gz", compresslevel=1) as archive:
        for each in sorted(Path(place).rglob("*")):
            with suppress(FileNotFoundError):  # a file that gets its name, or is replaced
                archive.add(each, each.relative_to(place), recursive=False)
    flush(path)


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """An empty folder beside the one that is wanted, for this process alone; it is removed unless it was renamed."""
    partial = folder.with_name(folder.name + ".partial")
    make_folders(partial, 0o700)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OpsError(f"{partial} is being written by another backup: wait for it, or name another folder") from None
        for each in partial.iterdir():  # of a backup that was killed
            rmtree(each) if each.is_dir() else each.unlink()
        partial.chmod(0o700)
        try:
            yield partial
        finally:
            rmtree(partial, ignore_errors=True)
            flush_folder(folder.parent)
    finally:
        os.close(descriptor)
