"""A private PostgreSQL on the files of another server, as a backup has them: recovered, and with our own configuration."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.errors import NotReady
from ops.runtime.durable_files import replace_durably
from ops.servers.accounts import Account, own_file, own_folder
from ops.servers.binaries import find_postgres
from ops.servers.child import stop, wait_ready
from ops.servers.ports import Claims
from ops.servers.postgres import (
    USER,
    configuration,
    name_database,
    postgres_child,
    postgres_url,
    server_environment,
)
from ops.servers.process_tree import run_watched, work_done
from ops.servers.state_file import Memory

_STOP_SECONDS: Final = 60.0
_LAST: Final = re.compile(r"last completed transaction was at log time (\S+ [\d:]+)", re.ASCII)

#: The other server's may be elsewhere, or let others in.
_WHO_MAY_CONNECT: Final = """\
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""

#: In single-user mode each line is a statement, and it waits for no other process.
_OURS: Final = """\
DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') THEN CREATE ROLE {user}; END IF; END $$
ALTER ROLE {user} SUPERUSER REPLICATION LOGIN CONNECTION LIMIT -1 VALID UNTIL 'infinity' PASSWORD '{password}'
"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The URL of the server's owner, and the time of the last transaction that it replayed, None if there was none."""

    database_url: str
    last: str | None


def folder_for(memory: Memory) -> Path:
    """The folder in which to unpack the files: beside their place, where no server looks for them."""
    return own_folder(memory.folder / "postgres", memory.account("postgres")) / "data.new"


@contextmanager
def restored_postgres(memory: Memory, version: str, database: str, recovery: str | None = None) -> Iterator[Recovered]:
    """Recover the files in `folder_for`, move them to their place, and run the server there.

    `recovery` is the configuration by which it replays an archive, see `ops.servers.wal_archive.recovering`; without, it
    replays what is in the files. Its database `database` gets the name of ours. Raises `OpsError`.
    """
    claims = Claims()
    memory.take_ports(("postgres",), claims)
    port, password, account = memory.ports["postgres"], memory.passwords["postgres"], memory.account("postgres")
    fresh, log = folder_for(memory), memory.data / "log" / "postgres.log"
    told = _adopt(fresh, port, password, account, version, recovery)
    replace_durably(fresh, fresh.with_name("data"))
    postgres = postgres_child(fresh.parent, port, password, account, log)
    try:
        postgres.start()
        wait_ready([postgres], _STOP_SECONDS)
        name_database(port, password, database)
        last = _LAST.search(told)
        yield Recovered(postgres_url(port, USER, password), last[1] if last else None)
    finally:
        stop([postgres], _STOP_SECONDS)
        claims.release()


def _adopt(data: Path, port: int, password: str, account: Account | None, version: str, recovery: str | None) -> str:
    """Configure the server, replay its WAL, and make its superuser ours; gives what the server said."""
    for name in ("standby.signal", "recovery.signal", "postmaster.opts", "backup_manifest"):
        (data / name).unlink(missing_ok=True)
    settings = configuration(find_postgres(version), data, port) + (recovery or "")
    own_file(data / "postgresql.conf", settings, account)
    own_file(data / "pg_hba.conf", _WHO_MAY_CONNECT, account)
    own_file(data / "pg_ident.conf", "", account)
    own_file(data / "postgresql.auto.conf", "", account)  # else it archives, and waits for standbys, as the other server did
    if recovery is not None:
        own_file(data / "recovery.signal", "", account)
    if account is not None:
        for folder, _, names in os.walk(data):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                os.chown(path, account.uid, account.gid)
    command = [str(find_postgres(version) / "postgres"), "--single", "-D", str(data), "template1"]
    statements = _OURS.format(user=USER, password=password)
    ended = run_watched(command, server_environment(data.parent), work_done, told=statements, folder=data, account=account)
    if ended.returncode != 0 or "ERROR:" in ended.stderr or (data / "recovery.signal").exists():
        lines = ended.stderr.replace(password, "…").splitlines()
        fatal = [line for line in lines if "FATAL:" in line or "ERROR:" in line]
        raise NotReady(f"PostgreSQL could not recover the backup: {' '.join(' '.join(fatal or lines).split())[-500:]}")
    return ended.stderr
