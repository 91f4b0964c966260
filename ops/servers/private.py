"""Private PostgreSQL and RabbitMQ in a data folder: for `waxseal up`, the tests and the benchmarks.

What must be remembered between runs is in the folder's `servers.json`: where the servers' data is, their ports and passwords.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Final

from ops.errors import NotReady
from ops.servers.child import Child, stop, wait_ready
from ops.servers.leftovers import end_leftovers
from ops.servers.lock import sole_owner
from ops.servers.ports import Claims, is_free
from ops.servers.postgres import USER, create_database, postgres_child, postgres_url
from ops.servers.rabbitmq import epmd_child, rabbitmq_child, rabbitmq_url
from ops.servers.state_file import Memory, peek, recall

_START_SECONDS: Final = 120.0  # a crash recovery replays up to 2 GB of log
_STOP_SECONDS: Final = 30.0
_ATTEMPTS: Final = 3


class PrivateServers:
    """PostgreSQL, RabbitMQ and its epmd, from `start` to `stop`; the same folder has the same data, whatever happened.

    Call `start` from a thread that lives on: the kernel stops the servers when that thread ends. `interrupted` is called while
    waiting, and may raise to give up.
    """

    def __init__(self, data: Path, interrupted: Callable[[], None] = lambda: None, wal_archive: Path | None = None) -> None:
        """`wal_archive` holds the folders in which servers archive their write-ahead log; None: this one does not."""
        self.data = data.absolute()
        self.wal_archive = wal_archive
        self.children: list[Child] = []
        self.claims = Claims()
        self._interrupted = interrupted
        self.memory: Memory

    @property
    def database_url(self) -> str:
        """The URL of the database, as its owner and the server's superuser."""
        return self.url_for(USER, self.memory.passwords["postgres"])

    @property
    def amqp_url(self) -> str:
        """The URL of the broker, as a user with all permissions."""
        return rabbitmq_url(self.memory.ports["amqp"], self.memory.passwords["rabbitmq"])

    def url_for(self, user: str, password: str) -> str:
        """Give the database's URL for another user."""
        return postgres_url(self.memory.ports["postgres"], user, password)

    @property
    def postgres_pid(self) -> int:
        """The postmaster's pid."""
        return self.child("postgres").pid

    @property
    def rabbitmq_pid(self) -> int:
        """The Erlang VM's pid."""
        return self.child("rabbitmq").pid

    @property
    def epmd_pid(self) -> int:
        """The port mapper's pid."""
        return self.child("epmd").pid

    def child(self, name: str) -> Child:
        """Give one of the three processes. Raises `NotReady` when they were not started."""
        for child in self.children:
            if child.name == name:
                return child
        raise NotReady(f"{name} was not started")

    def start(self) -> None:
        """End leftovers of a run that was killed, start all three and wait until they answer.

        Raises `ServersMissing` or `NotReady`, and then none is left running.
        """
        self.memory = recall(self.data)
        end_leftovers(*self.memory.workplaces)
        for attempt in range(1, _ATTEMPTS + 1):
            self.memory.take_ports(("postgres", "amqp", "node", "epmd"), self.claims)
            try:
                self._start_once()
                return
            except BaseException as error:
                self.stop()
                # Another process may have taken a port between our check and the server's bind.
                if attempt == _ATTEMPTS or not isinstance(error, NotReady) or self._ports_are_free():
                    raise

    def stop(self) -> None:
        """Stop them cleanly, or by force after a deadline; none is left. Harmless when nothing runs."""
        with_epmd = [child for child in self.children if child.name == "epmd"]
        stop([child for child in self.children if child.name != "epmd"], _STOP_SECONDS)
        stop(with_epmd, _STOP_SECONDS)
        self.claims.release()

    def restart(self, name: str) -> None:
        """Stop one of them if it runs, start it on the same port and data, and wait until it answers."""
        child = self.child(name)
        stop([child], _STOP_SECONDS)
        child.start()
        wait_ready([child], _START_SECONDS, self._interrupted)

    def restart_postgres(self) -> None:
        """Restart PostgreSQL, or start it after it was killed."""
        self.restart("postgres")

    def restart_rabbitmq(self) -> None:
        """Restart RabbitMQ, or start it after it was killed."""
        self.restart("rabbitmq")

    def _start_once(self) -> None:
        ports, passwords, folder, logs = (
            self.memory.ports,
            self.memory.passwords,
            self.memory.folder,
            self.data / "log",
        )
        broker = self.memory.account("rabbitmq")
        epmd = epmd_child(folder / "rabbitmq", ports["epmd"], broker, logs / "epmd.log")
        rabbit_ports = (ports["amqp"], ports["node"], ports["epmd"])
        rabbitmq = rabbitmq_child(folder / "rabbitmq", rabbit_ports, passwords["rabbitmq"], broker, logs / "rabbitmq.log")
        self.children = [epmd, rabbitmq]
        epmd.start()
        wait_ready([epmd], 10, self._interrupted)
        rabbitmq.start()  # the slowest to start: PostgreSQL is made and started meanwhile
        owner = self.memory.account("postgres")
        port, log = ports["postgres"], logs / "postgres.log"
        postgres = postgres_child(folder / "postgres", port, passwords["postgres"], owner, log, self.wal_archive)
        self.children.append(postgres)
        postgres.start()
        wait_ready(self.children, _START_SECONDS, self._interrupted)
        create_database(ports["postgres"], passwords["postgres"])

    def _ports_are_free(self) -> bool:
        return all(is_free(port) for port in self.memory.ports.values())


@contextmanager
def private_servers(data: Path) -> Iterator[PrivateServers]:
    """Run private servers on `data` while the block runs. Raises `AlreadyRunning` when another process does."""
    data = data.absolute()
    with sole_owner(data):
        servers = PrivateServers(data)
        servers.start()
        try:
            yield servers
        finally:
            servers.stop()


def erase_servers(data: Path) -> None:
    """End the processes that still use the servers' data, and remove it, wherever it is."""
    memory = peek(data.absolute())
    if memory is not None:
        end_leftovers(*memory.workplaces)
        for name in ("postgres", "rabbitmq", "prometheus"):
            rmtree(memory.folder / name, ignore_errors=True)
        if memory.elsewhere is not None:
            rmtree(memory.elsewhere, ignore_errors=True)
