"""`bench mail`: from mailboxes of a local Dovecot to the ledger: many mails, a large one, and beside mailboxes that hang."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from sqlalchemy import Engine

from ops.bench.configured_system import configure, fresh_servers
from ops.bench.mailserver.dovecot import PASSWORD, Dovecot, dovecot, mail
from ops.bench.measuring.results import ratio, report
from ops.bench.processes import running
from ops.config.apply import apply_file
from ops.errors import OpsError
from ops.runtime.db import make_engine, transaction
from ops.servers.private import PrivateServers
from ops.settings import Settings
from pipeline.store.ledger import entries as ledger_entries

BYTES: Final = 4096  # of a mail
LARGE: Final = 25 * 1024 * 1024
DEADLINE: Final = 120.0  # seconds for one measurement
WARM: Final = 0.1  # of the mails, not timed
HANGING: Final = 10  # mailboxes, of a hundred
EACH: Final = 20  # mails in each of the hundred
START: Final = 3.0  # seconds for the processes to start, which are not timed

Environment = dict[str, str]


def run(*, quick: bool = False) -> dict[str, Any]:
    """Run everything on fresh private servers; gives the report of CONTRACT §8."""
    count, boxes = (1_000, 20) if quick else (20_000, 100)
    with fresh_servers() as (servers, folder), dovecot(connections=500) as box:
        bench = _Bench(servers, folder, box)
        results = bench.one_mailbox(count) | bench.large_mail() | bench.hanging(boxes)
        bench.close()
        return report("mail", results, servers.database_url)


class _Bench:
    def __init__(self, servers: PrivateServers, folder: Path, box: Dovecot) -> None:
        self._box = box
        self._file = folder / "mail.yaml"
        self._env = configure(servers, folder, "tenants: [{name: bench}]\n") | {"WAXSEAL_BLOBS": str(folder / "blobs")}
        self._settings = Settings(database_url=servers.database_url, keys=self._env["WAXSEAL_KEYS"])
        self._engine: Engine = make_engine(servers.database_url, pool_size=1)

    def close(self) -> None:
        self._engine.dispose()

    def one_mailbox(self, count: int) -> dict[str, Any]:
        """Mails per second from one mailbox, without the first tenth."""
        for number in range(count):
            self._box.deliver("one", mail(number, BYTES))
        with self._running() as puller:
            launched = (time.monotonic(), self._entries())
            self._configure({"one": self._box.port})
            taken, rss = self._until(launched[1] + count, puller)
        samples = [launched, *taken]
        ended, last = samples[-1]
        began, first = max(sample for sample in samples[:-1] if sample[1] <= last - count * (1 - WARM))
        return {"mails": count, "mails_per_s": round((last - first) / (ended - began), 1), "rss_mib": rss}

    def large_mail(self) -> dict[str, Any]:
        """The time from the configuration of a mailbox with one large mail until its entry is recorded."""
        self._box.deliver("large", mail(1, LARGE))
        with self._running() as puller:
            began = time.monotonic()
            self._configure({"one": self._box.port, "large": self._box.port})
            _, rss = self._until(self._entries() + 1, puller)
        return {"large_bytes": LARGE, "large_ms": round((time.monotonic() - began) * 1000, 1), "large_rss_mib": rss}

    def hanging(self, boxes: int) -> dict[str, Any]:
        """The time that most mailboxes take when there are no others, and when others hang."""
        hung = max(1, boxes * HANGING // 100)
        well = self._round("well", boxes - hung, {})
        with _silent_server() as port:
            beside = self._round("beside", boxes - hung, {f"hung-{n}": port for n in range(hung)})
        return {
            "mailboxes": boxes,
            "of_which_hang": hung,
            "all_well_s": round(well, 2),
            "beside_hanging_s": round(beside, 2),
            "ratio_beside_to_well": ratio(beside, well),
        }

    def _round(self, name: str, count: int, others: dict[str, int]) -> float:
        users = [f"{name}-{number}" for number in range(count)]
        for user in users:
            for number in range(EACH):
                self._box.deliver(user, mail(number, BYTES).replace(b"Subject: ", f"Subject: {user} ".encode()))
        with self._running() as puller:
            time.sleep(START)
            wanted = self._entries() + count * EACH
            began = time.monotonic()
            self._configure(others | dict.fromkeys(users, self._box.port))
            self._until(wanted, puller)
            return time.monotonic() - began

    def _configure(self, mailboxes: dict[str, int]) -> None:
        lines = ["tenants: [{name: bench}]", "mailboxes:"]
        lines += [
            f"  - {{tenant: bench, name: {name}, kind: imap, host: 127.0.0.1, port: {port}, tls: false, username: {name}, "
            f"password: {PASSWORD}, poll: 1h}}"
            for name, port in mailboxes.items()
        ]
        self._file.write_text("\n".join(lines), encoding="utf-8")
        apply_file(self._file, self._settings)

    def _until(self, wanted: int, puller: psutil.Process) -> tuple[list[tuple[float, int]], float]:
        """Samples of the number of entries until it is `wanted`, and the puller's largest resident size in MiB."""
        samples: list[tuple[float, int]] = []
        rss, deadline = 0, time.monotonic() + DEADLINE
        while not samples or samples[-1][1] < wanted:
            time.sleep(0.02)
            samples.append((time.monotonic(), self._entries()))
            rss = max(rss, puller.memory_info().rss)
            if time.monotonic() > deadline:
                raise OpsError(f"{wanted - samples[-1][1]} mails were not recorded within {DEADLINE:.0f} s")
        return samples, round(rss / 2**20, 1)

    def _entries(self) -> int:
        with transaction(self._engine) as conn:
            return ledger_entries.count_by_heads(conn)

    @contextmanager
    def _running(self) -> Iterator[psutil.Process]:
        """Run an ingest and a mail-pull process; gives the latter."""
        commands = [[sys.executable, "-m", "ops.cli", name] for name in ("ingest", "mail-pull")]
        with running(commands, self._env) as (_, puller):
            yield puller


@contextmanager
def _silent_server() -> Iterator[int]:
    """A server that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        yield int(listening.getsockname()[1])
