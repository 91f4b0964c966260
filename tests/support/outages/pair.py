"""A PostgreSQL primary and a synchronous standby, each on a loopback address of its own, that change places."""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Final

import psutil
import psycopg

from ops.servers.accounts import own_file, own_folder, server_account, switch_to
from ops.servers.binaries import find_postgres
from ops.servers.child import Child, stop, wait_ready
from ops.servers.ports import Claims, choose_ports
from ops.servers.postgres import DATABASE, USER, postgres_child, server_environment
from support.waiting import wait_for

ADDRESSES: Final = ("127.0.2.1", "127.0.2.2")
PASSWORD: Final = "failover"
NAMES: Final = ("a", "b")

_CONFIGURATION: Final = """\
listen_addresses = '{address}'
cluster_name = '{name}'
wal_level = replica
max_wal_senders = 5
wal_keep_size = 512MB
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
synchronous_standby_names = '{standbys}'
primary_conninfo = '{primary}'
"""

_CLIENTS: Final = """\
host all all 127.0.0.0/8 scram-sha-256
host replication all 127.0.0.0/8 scram-sha-256
"""


class Pair:
    """Two servers by number, 0 and 1. `primary` is the number of the one that takes writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._account = server_account("postgres")
        self._claims = Claims()
        self.port = choose_ports(("postgres",), {}, claims=self._claims)["postgres"]
        self.primary = 0
        self.servers: list[Child] = []

    @property
    def standby(self) -> int:
        return 1 - self.primary

    def url(self, user: str = USER, password: str = PASSWORD) -> str:
        """Of whichever takes writes."""
        hosts = ",".join(f"{address}:{self.port}" for address in ADDRESSES)
        return f"postgresql://{user}:{password}@{hosts}/{DATABASE}?target_session_attrs=read-write"

    def url_of(self, number: int, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{PASSWORD}@{ADDRESSES[number]}:{self.port}/{database}"

    def start(self) -> None:
        """Makes both, and starts them; from then on each commit waits for the standby."""
        own_folder(self._folder, self._account)
        self.servers = [self._described(0)]
        self._configure(0, standbys="")
        self.start_server(0)
        with psycopg.connect(self.url_of(0, "postgres"), autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {DATABASE}")
        self._copy(1, of=0)
        self.servers.append(self._described(1))
        self._configure(1, standbys="")
        self._data(1).joinpath("standby.signal").touch()
        self.start_server(1)
        self.protect()

    def stop(self) -> None:
        for number, each in enumerate(self.servers):
            if each.running:
                self.thaw(number)
        stop(self.servers, 10)
        self._claims.release()

    def start_server(self, number: int) -> None:
        """Starts a server as it was, whatever the other one is meanwhile."""
        self.servers[number].start()
        wait_ready([self.servers[number]], 60)

    def promote(self) -> None:
        """Makes the standby the primary, as an operator does; the other one must not run any more."""
        number = self.standby
        with psycopg.connect(self.url_of(number), autocommit=True) as conn:
            assert conn.execute("SELECT pg_promote(true, 30)").fetchone() == (True,)
            self.primary = number
        self.protect(standbys="")

    def protect(self, standbys: str | None = None) -> None:
        """Has each commit wait for these standbys, the other server if none are given."""
        names = f"ANY 1 ({NAMES[self.standby]})" if standbys is None else standbys
        with psycopg.connect(self.url_of(self.primary), autocommit=True) as conn:
            if names:
                wait_for(lambda: conn.execute("SELECT FROM pg_stat_replication WHERE state = 'streaming'").fetchall())
            conn.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            conn.execute("SELECT pg_reload_conf()")
        if names:
            wait_for(lambda: self.synchronous)

    @property
    def synchronous(self) -> bool:
        with psycopg.connect(self.url_of(self.primary), autocommit=True) as conn:
            return bool(conn.execute("SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')").fetchall())

    def kill(self, number: int) -> None:
        """Kills all processes of the server at once, frozen or not."""
        self._signal(number, signal.SIGKILL)
        process = self.servers[number].process
        assert process is not None
        process.wait(timeout=10)

    def freeze(self, number: int) -> None:
        """Stops all processes of the server; its kernel goes on acknowledging what it is sent."""
        self._signal(number, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self._signal(number, signal.SIGCONT)

    def _signal(self, number: int, what: signal.Signals) -> None:
        for pid in self.family(number):
            with suppress(ProcessLookupError):
                os.kill(pid, what)

    def changes(self, number: int) -> int:
        """How many rows were written there, as far as its statistics know, which begin anew when it was killed."""
        with psycopg.connect(self.url_of(number), autocommit=True, connect_timeout=5) as conn:
            written = conn.execute("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables")
            return int((written.fetchone() or (0,))[0] or 0)

    def family(self, number: int) -> list[int]:
        head = psutil.Process(self.servers[number].pid)
        return [head.pid, *(each.pid for each in head.children(recursive=True))]

    def fence(self, number: int) -> None:
        """Has a server that does not run come back as a standby only, whoever starts it."""
        self._data(number).joinpath("standby.signal").touch()

    def rejoin(self, number: int) -> None:
        """Makes a server that was killed a standby of the other one, from a new copy, and has commits wait for it."""
        assert number == self.standby
        rmtree(self._data(number))
        self._copy(number, of=self.primary)
        self._configure(number, standbys="")
        self._data(number).joinpath("standby.signal").touch()
        self.start_server(number)
        self.protect()

    def _copy(self, number: int, of: int) -> None:
        own_folder(self._home(number), self._account)
        source = f"{self.url_of(of, 'postgres')}?application_name={NAMES[number]}"
        command = [str(find_postgres() / "pg_basebackup"), "-D", str(self._data(number)), "-X", "stream", "-c", "fast"]
        ended = subprocess.run(
            [*command, "-d", source],
            env=server_environment(self._home(number)),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **switch_to(self._account),
        )
        assert ended.returncode == 0, ended.stderr

    def _described(self, number: int) -> Child:
        home, port = self._home(number), self.port
        one = postgres_child(home, port, PASSWORD, self._account, self._folder / "log" / f"{NAMES[number]}.log")
        return replace(one, name=NAMES[number], ready=lambda: _answers(self.url_of(number, "postgres")))

    def _configure(self, number: int, standbys: str) -> None:
        primary = (
            f"host={ADDRESSES[1 - number]} port={self.port} user={USER} password={PASSWORD} application_name={NAMES[number]}"
        )
        told = _CONFIGURATION.format(address=ADDRESSES[number], name=NAMES[number], standbys=standbys, primary=primary)
        own_file(self._data(number) / "postgresql.auto.conf", told, self._account)
        own_file(self._data(number) / "pg_hba.conf", _CLIENTS, self._account)

    def _home(self, number: int) -> Path:
        return self._folder / NAMES[number]

    def _data(self, number: int) -> Path:
        return self._home(number) / "data"


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
