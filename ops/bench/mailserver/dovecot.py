"""A private Dovecot, unprivileged, on free ports of the loopback address. Every user has the same password and token.

For `bench mail` and the tests. Mails are put into mailboxes as files, as a delivery agent does.
"""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import psutil

from ops.bench.mailserver.conf import BEFORE_2_4, SINCE_2_4
from ops.errors import NotReady, ServersMissing
from ops.servers.accounts import server_account, switch_to
from ops.servers.ports import Claims, choose_ports, listens
from ops.servers.process_tree import end_all
from ops.settings import environment

PASSWORD: Final = "correct-horse"  # noqa: S105 - of a server on loopback only
PROGRAM: Final = Path("/usr/sbin/dovecot")
_START_SECONDS: Final = 15.0


@dataclass
class Dovecot:
    """A running server."""

    home: Path
    port: int
    uid: int
    gid: int
    tls_port: int = 0
    _numbers: Iterator[int] = field(default_factory=count)

    def maildir(self, user: str, folder: str = "INBOX") -> Path:
        """The path of a folder's mails."""
        root = self.home / "mail" / user / "Maildir"
        return root if folder == "INBOX" else root / folder

    def make(self, user: str, folder: str = "INBOX") -> None:
        """Make a folder, unless it exists."""
        box = self.maildir(user, folder)
        for part in ("tmp", "new", "cur"):
            (box / part).mkdir(parents=True, exist_ok=True)
            os.chown(box / part, self.uid, self.gid)
        while box != self.home:
            os.chown(box, self.uid, self.gid)
            box = box.parent

    def deliver(self, user: str, raw: bytes, folder: str = "INBOX", at: float | None = None) -> None:
        """Deliver a mail, now or with the time `at` in Unix seconds. The server finds it at its next scan."""
        box = self.maildir(user, folder)
        if not (box / "new").exists():
            self.make(user, folder)
        name = f"{int(at or time.time())}.{next(self._numbers):09}.waxseal"
        path = box / "tmp" / name
        path.write_bytes(raw)
        os.chown(path, self.uid, self.gid)
        if at is not None:
            os.utime(path, (at, at))
        path.rename(box / "new" / name)

    def files(self, user: str, folder: str = "INBOX") -> list[Path]:
        """The mails of a folder, with their flags in their names."""
        box = self.maildir(user, folder)
        return sorted([*(box / "new").iterdir(), *(box / "cur").iterdir()])

    def processes(self, name: str = "imap") -> list[psutil.Process]:
        """The server's own processes of that name. One that ends meanwhile is left out."""
        found = {"ppid": int((self.home / "run" / "master.pid").read_text()), "name": name}
        return [process for process in psutil.process_iter(list(found)) if process.info == found]


@contextmanager
def dovecot(*, connections: int = 50, certificate: str | None = None) -> Iterator[Dovecot]:
    """Run a server while the block runs, with `certificate` (PEM, with its key) also over TLS.

    Raises `ServersMissing` when Dovecot is not installed, and `NotReady`.
    """
    if not PROGRAM.exists():
        raise ServersMissing("Dovecot is not on this machine: install the packages dovecot-core and dovecot-imapd")
    home = Path(tempfile.mkdtemp(prefix="waxseal-dovecot-"))
    claims = Claims()
    try:
        with _running(home, choose_ports(("imap", "imaps"), {}, claims=claims), connections, certificate) as server:
            yield server
    finally:
        claims.release()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _running(home: Path, ports: Mapping[str, int], connections: int, certificate: str | None) -> Iterator[Dovecot]:
    account = server_account("nobody")
    uid, gid = (account.uid, account.gid) if account else (os.getuid(), os.getgid())
    (home / "mail").mkdir()
    (home / "server.pem").write_text(certificate or "")
    (home / "server.pem").chmod(0o600)
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True, timeout=_START_SECONDS).stdout
    configuration, names = (
        (BEFORE_2_4, ("ssl_cert = <", "ssl_key = <"))
        if version.startswith("2.3.")
        else (SINCE_2_4, ("ssl_server_cert_file = ", "ssl_server_key_file = "))
    )
    secure = "\n".join(f"{name}{home}/server.pem" for name in names) if certificate else ""
    (home / "dovecot.conf").write_text(
        configuration.format(
            home=home,
            port=ports["imap"],
            tls_port=ports["imaps"] if certificate else 0,
            ssl="yes" if certificate else "no",
            certificates=secure,
            user=pwd.getpwuid(uid).pw_name,
            group=grp.getgrgid(gid).gr_name,
            uid=uid,
            gid=gid,
            connections=connections,
            password=PASSWORD,
        )
    )
    for each in (home, *home.rglob("*")):
        os.chown(each, uid, gid)
    home.chmod(0o711)
    command = [str(PROGRAM), "-F", "-c", str(home / "dovecot.conf")]
    process = subprocess.Popen(command, env=environment(), cwd=home, start_new_session=True, **switch_to(account))
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not listens(ports["imap"]):
            if process.poll() is not None or time.monotonic() > deadline:
                log = home / "dovecot.log"
                raise NotReady(f"Dovecot did not start: {log.read_text()[-500:] if log.exists() else 'no log'}")
            time.sleep(0.02)
        yield Dovecot(home, ports["imap"], uid, gid, ports["imaps"])
    finally:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGCONT)  # a process that a test has stopped does not end
        end_all([process], 10)


def mail(number: int, size: int = 400, message_id: str | None = None) -> bytes:
    """A mail of about `size` bytes, different for each number."""
    head = (
        f"From: Ada <ada{number % 50}@example.org>\r\nTo: support@acme.example\r\nSubject: number {number}\r\n"
        f"Message-ID: <{message_id or f'{number}@example.org'}>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\r\n"
    ).encode()
    lines = max(1, (size - len(head)) // 78)
    return head + (b"x" * 76 + b"\r\n") * lines
