"""A private PostgreSQL on the files of another server, as a backup has them: recovered, and with our own configuration."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ops.errors import NotReady
from ops.runtime.durable_files import replace_durably
from ops.servers.accounts import Account, own_file, own_folder, switch_to
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
from ops.servers.state_file import Memory

_RECOVERY_SECONDS: Final = 3600.0
_STOP_SECONDS: Final = 60.0

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


def folder_for(memory: Memory) -> Path:
    """The folder in which to unpack the files: beside their place, where no server looks for them."""
    return own_folder(memory.folder / "postgres", memory.account("postgres")) / "data.new"


@contextmanager
def restored_postgres(memory: Memory, version: str, database: str) -> Iterator[str]:
    """Recover the files in `folder_for`, move them to their place, and run the server there; gives the URL of its owner.

    Its database `database` gets the name of ours. Raises `NotReady`.
    """
    claims = Claims()
    memory.take_ports(("postgres",), claims)
    port, password, account = memory.ports["postgres"], memory.passwords["postgres"], memory.account("postgres")
    fresh, log = folder_for(memory), memory.data / "log" / "postgres.log"
    _adopt(fresh, port, password, account, version)
    replace_durably(fresh, fresh.with_name("data"))
    postgres = postgres_child(fresh.parent, port, password, account, log)
    try:
        postgres.start()
        wait_ready([postgres], _STOP_SECONDS)
        name_database(port, password, database)
        yield postgres_url(port, USER, password)
    finally:
        stop([postgres], _STOP_SECONDS)
        claims.release()


def _adopt(data: Path, port: int, password: str, account: Account | None, version: str) -> None:
    """Configure the server, replay its WAL, and make its superuser ours."""
    for name in ("standby.signal", "recovery.signal", "postmaster.opts", "backup_manifest"):
        (data / name).unlink(missing_ok=True)
    own_file(data / "postgresql.conf", configuration(find_postgres(version), data, port), account)
    own_file(data / "pg_hba.conf", _WHO_MAY_CONNECT, account)
    own_file(data / "pg_ident.conf", "", account)
    own_file(data / "postgresql.auto.conf", "", account)  # else it archives, and waits for standbys, as the other server did
    if account is not None:
        for folder, _, names in os.walk(data):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                os.chown(path, account.uid, account.gid)
    command = [str(find_postgres(version) / "postgres"), "--single", "-D", str(data), "template1"]
    ended = subprocess.run(
        command,
        env=server_environment(data.parent),
        cwd=data,
        input=_OURS.format(user=USER, password=password),
        capture_output=True,
        text=True,
        check=False,
        timeout=_RECOVERY_SECONDS,
        **switch_to(account),
    )
    if ended.returncode != 0 or "ERROR:" in ended.stderr:
        told = " ".join(ended.stderr.replace(password, "…").split())
        raise NotReady(f"PostgreSQL could not recover the backup: {told[-500:]}")
