"""A backup's manifest.json: what the backup is of, what it needs, and the size and SHA-256 of each of its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Final

from ops.errors import OpsError
from ops.servers.accounts import own_file

FORMAT: Final = 1
FILE: Final = "manifest.json"
DATABASE: Final = "database"  # the folder of the base backup
BLOBS: Final = "blobs"
BLOB_LIST: Final = "blobs.jsonl"
DEFINITIONS: Final = "definitions.json"
PUBLISHED: Final = "published.tar.gz"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. Times are RFC 3339, in UTC."""

    waxseal: str
    schema: str
    postgres: str  # the major version
    database: str
    began: str
    ended: str
    wal: Mapping[str, Any]  # timeline, start, end: what a restore replays; ended, system, segment_bytes, archive: for --until
    keys: Sequence[str]  # names of the keys that decrypt its secrets; the keys are not in it
    log_origin: str
    log_files: str
    blobs: int
    blob_bytes: int
    faults: Sequence[str]  # blobs that were missing or altered when it was taken
    parts: Mapping[str, Mapping[str, Any]]  # by path, without the blobs, whose names are their digests


def key_name(key: str) -> str:
    """The name of a key, which does not give it away: the beginning of its SHA-256."""
    return sha256(key.encode()).hexdigest()[:16]


def part_of(path: Path) -> dict[str, Any]:
    """The size and the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def write(folder: Path, manifest: Manifest) -> None:
    """Write it durably."""
    own_file(folder / FILE, json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1) + "\n", None)


def read(folder: Path) -> Manifest:
    """Read it. Raises `OpsError` for a folder that is no complete backup."""
    try:
        known = json.loads((folder / FILE).read_text())
        if known.pop("format") != FORMAT:
            raise OpsError(f"{folder} is a backup of another format: use the waxseal that made it, {known.get('waxseal')}")
        manifest = Manifest(**known)
    except (FileNotFoundError, NotADirectoryError):
        raise OpsError(f"{folder} is no backup: it has no {FILE}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise OpsError(f"{folder / FILE} is damaged ({error}): use another backup") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in manifest.parts):
        raise OpsError(f"{folder / FILE} names files outside of the backup: use another backup")
    return manifest
