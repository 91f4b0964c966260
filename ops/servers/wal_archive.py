"""The archive of a private PostgreSQL's write-ahead log: a folder of its own for each server, and the commands that it runs.

A file gets its name when all of it is on disk, and no file is ever replaced by another: `sh archive.sh` says why it refuses.
"""

import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ops.errors import NotReady, OpsError
from ops.runtime.durable_files import make_folders
from ops.servers.accounts import Account, can_enter, own_file, own_folder

_ANSWER_SECONDS: Final = 10.0
SUFFIX: Final = ".gz"
PLACE: Final = "waxseal.wal_archive"  # a parameter of the server: where its archive is, for whoever asks it
SCRIPT: Final = "archive.sh"
_ID: Final = "archive-id"  # beside the server's data, so that neither a backup nor a restore of that has it
_AWKWARD: Final = frozenset("'\"\\%\n\r")

_CONFIGURATION: Final = """\
archive_mode = on
archive_timeout = 60s
archive_command = 'sh ''{script}'' "%p" "%f" ''{folder}'''
{place} = '{folder}'
"""

_SCRIPT: Final = """\
# Archives a file of the write-ahead log: sh archive.sh PATH NAME FOLDER. PostgreSQL repeats it until it succeeds.
set -eu
umask 077
kept="$3/$2.gz"
if [ -e "$kept" ]; then
  # PostgreSQL was stopped before it noted that this file is archived; or another server archives into this folder.
  if gzip -dc "$kept" | cmp -s - "$1"; then exit 0; fi
  echo "$kept is there, with other contents: each server needs an archive of its own" >&2
  exit 1
fi
fresh="$3/$2.new.$$"
trap 'rm -f "$fresh"' EXIT
gzip -1 -c "$1" >"$fresh"
sync "$fresh"
ln "$fresh" "$kept"  # unlike mv it never replaces a file
sync "$3"
"""

#: A file that is there and cannot be unpacked ends the recovery; any code up to 125 would mean that the archive ends there.
_RESTORE: Final = 'test -e "{folder}/%f.gz" || exit 1; gzip -dc "{folder}/%f.gz" >"%p" || exit 126'

_RECOVERY: Final = """\
restore_command = '{command}'
recovery_target_timeline = 'current'
recovery_target_action = 'promote'
hot_standby = off
"""


def check_archive(root: Path, data: Path) -> None:
    """Raise `OpsError` for a folder that cannot be one of archives for the server in the data folder, before it is made."""
    if _AWKWARD & set(str(root.absolute())):
        raise OpsError(f"{root}: name an archive without a quote, a backslash, a percent sign or a line end in its path")
    if root.absolute().is_relative_to(data.absolute()):
        raise OpsError(f"{root} is in the data folder, and would be lost with it: keep the archive elsewhere, on another disk")


def archiving(home: Path, system: str, root: Path, account: Account | None) -> str:
    """Make the server's own folder in `root`, and give its configuration. `home` holds the server's data.

    Its name is the server's system identifier and an id of this data folder: what is restored has the identifier of the
    server that was backed up. Raises `OpsError` if the server cannot write there.
    """
    if not (home / _ID).exists():
        own_file(home / _ID, secrets.token_hex(4), account)
    folder = root.absolute() / f"{system}-{(home / _ID).read_text()}"
    if not root.exists():
        make_folders(root)
        root.chmod(0o711)
    if not can_enter(account, root):
        raise OpsError(f"{root} cannot be entered by {account.name if account else 'you'}, who runs PostgreSQL: allow that")
    own_folder(folder, account)
    for left in folder.glob("*.new.*"):  # by a server that was killed
        left.unlink(missing_ok=True)
    own_file(home / SCRIPT, _SCRIPT, account)
    return _CONFIGURATION.format(script=home / SCRIPT, folder=folder, place=PLACE)


def recovering(folder: Path, target: Mapping[str, str]) -> str:
    """The configuration of a server that replays what is in an archive, until `target`, or all of it if there is none."""
    told = _RECOVERY.format(command=_RESTORE.format(folder=folder))
    return told + "".join(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in target.items())


def system_identifier(programs: Path, data: Path, environment: Mapping[str, str]) -> str:
    """What names the server's files and their write-ahead log, of all servers."""
    command = [str(programs / "pg_controldata"), str(data)]
    try:
        told = subprocess.run(
            command, env=dict(environment), capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NotReady(f"pg_controldata did not read {data} within {_ANSWER_SECONDS:g} s") from None
    for line in told.stdout.splitlines():
        name, _, value = line.partition(":")
        if name == "Database system identifier":
            return value.strip()
    raise OpsError(f"pg_controldata does not tell the system identifier of {data}: {' '.join(told.stderr.split())}")
