"""A private PostgreSQL: durable, on the loopback address only, with a password."""

import signal
import subprocess
from pathlib import Path
from shutil import rmtree
from typing import Final
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from ops.errors import NotReady
from ops.runtime.durable_files import replace_durably
from ops.servers.accounts import Account, own_file, own_folder, switch_to
from ops.servers.binaries import find_postgres
from ops.servers.child import Child
from ops.servers.leftovers import end_leftovers
from ops.servers.ports import LOOPBACK, listens
from ops.servers.wal_archive import archiving, system_identifier
from ops.settings import environment

USER: Final = "waxseal"
DATABASE: Final = "waxseal"
_LEAST_BUFFERS, _MOST_BUFFERS = 128, 2048  # MiB
_INITDB_SECONDS: Final = 120.0
_ANSWER_SECONDS: Final = 10.0

#: Rewritten at each start; ALTER SYSTEM writes to postgresql.auto.conf, which takes precedence. fsync and synchronous_commit
#: stay on: "accepted means kept" depends on durable commits.
_CONFIGURATION: Final = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 100
password_encryption = 'scram-sha-256'
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = {compression}
shared_buffers = {buffers}MB
work_mem = 8MB
maintenance_work_mem = 128MB
effective_cache_size = 1GB
max_wal_size = 2GB
min_wal_size = 256MB
checkpoint_timeout = 10min
checkpoint_completion_target = 0.9
random_page_cost = 1.1
max_worker_processes = 4
max_parallel_workers_per_gather = 1
autovacuum_naptime = 15s
log_error_verbosity = terse
log_checkpoints = off
log_line_prefix = '%m [%p] '
timezone = 'UTC'
log_timezone = 'UTC'
"""


def configuration(programs: Path, data: Path, port: int) -> str:
    """The file postgresql.conf for a server of these programs, whose data is in `data` already."""
    return _CONFIGURATION.format(port=port, compression=_compression(programs, data), buffers=_buffers())


def _buffers() -> int:
    """MiB of shared buffers: an eighth of the machine's memory, which other programs use too, and at most 2 GiB.

    Postgres takes the memory when it uses it. With 256 MiB, and five million events, recording one cost Postgres 1.5 times the
    CPU that it costs with 100,000; with 2 GiB, 1.2 times: the index of fingerprints is read and written everywhere.
    """
    eighth = psutil.virtual_memory().total // 2**20 // 8
    return max(_LEAST_BUFFERS, min(eighth, _MOST_BUFFERS))


def postgres_url(port: int, user: str, password: str, database: str = DATABASE) -> str:
    """Give the URL of a user on the private server."""
    return f"postgresql://{quote(user)}:{quote(password)}@{LOOPBACK}:{port}/{database}"


def postgres_child(
    home: Path, port: int, password: str, account: Account | None, log: Path, archive: Path | None = None
) -> Child:
    """Prepare a server whose data is in `home`, made there if missing, and describe its process.

    `archive` holds the folders in which servers archive their write-ahead log; None: this one does not.
    Raises `ServersMissing` when PostgreSQL, or the version that made the data, is not installed, and `OpsError`.
    """
    own_folder(home, account)
    data = home / "data"
    version = (data / "PG_VERSION").read_text().strip() if (data / "PG_VERSION").exists() else None
    programs = find_postgres(version)
    if version is None:
        _initdb(programs, home, password, account)
    settings = configuration(programs, data, port)
    if archive is not None:
        settings += archiving(home, system_identifier(programs, data, server_environment(home)), archive, account)
    own_file(data / "postgresql.conf", settings, account)
    return Child(
        name="postgres",
        role="postgres",
        command=[str(programs / "postgres"), "-D", str(data)],
        environment=server_environment(home),
        log=log,
        folder=data,
        ready=lambda: listens(port) and _answers(postgres_url(port, USER, password, "postgres")),
        clear=lambda: _clear(data),
        account=account,
        stop_signal=signal.SIGINT,  # "fast" shutdown: rolls back open transactions, then a checkpoint
        at_our_death=signal.SIGINT,
    )


def create_database(port: int, password: str) -> None:
    """Create the database unless it exists."""
    with psycopg.connect(postgres_url(port, USER, password, "postgres"), autocommit=True, connect_timeout=10) as conn:
        if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def name_database(port: int, password: str, name: str) -> None:
    """Give the database `name` the name of ours, and another one of that name an additional `_other`. Nobody may use them."""
    if name == DATABASE:
        return
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    with psycopg.connect(postgres_url(port, USER, password, "template1"), autocommit=True, connect_timeout=10) as conn:
        if conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            conn.execute(rename.format(sql.Identifier(DATABASE), sql.Identifier(f"{DATABASE}_other")))
        conn.execute(rename.format(sql.Identifier(name), sql.Identifier(DATABASE)))


def _initdb(programs: Path, home: Path, password: str, account: Account | None) -> None:
    """Make the data folder. It gets its name last, so that an interrupted initdb is repeated."""
    fresh, secret = home / "data.new", home / "password"
    rmtree(fresh, ignore_errors=True)
    command = [str(programs / "initdb"), "-D", str(fresh), "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}"]
    command += ["--locale=C.UTF-8", "--encoding=UTF8", "--data-checksums"]
    own_file(secret, password, account)
    try:
        made = subprocess.run(
            command,
            env=server_environment(home),
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INITDB_SECONDS,
            **switch_to(account),
        )
    except subprocess.TimeoutExpired:
        raise NotReady(f"initdb did not end within {_INITDB_SECONDS:.0f} s") from None
    finally:
        secret.unlink(missing_ok=True)
    if made.returncode != 0:
        raise NotReady(f"initdb failed: {' '.join(made.stderr.split())}")
    replace_durably(
        fresh, home / "data"
    )  # a name that is not on disk would be lost, and initdb repeated, after a power failure


def _compression(programs: Path, data: Path) -> str:
    """The method for whole pages in the write-ahead log: lz4 takes a tenth of the time, and not every server has it."""
    asked = [str(programs / "postgres"), "-C", "wal_compression", "-c", "wal_compression=lz4", "-D", str(data)]
    try:
        found = subprocess.run(asked, env=environment(), capture_output=True, check=False, timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return "on"
    return "on" if found.returncode else "lz4"


def _clear(data: Path) -> None:
    """End processes that a killed server left, then remove its lock file: another process may have the pid in it by now."""
    end_leftovers(data)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise NotReady("the data folder was made with another password: remove it, or restore servers.json") from None
        return False
    return True


def server_environment(home: Path) -> dict[str, str]:
    """The environment of the server's programs: nothing of ours."""
    return {"PATH": environment().get("PATH", "/usr/bin:/bin"), "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC"}
