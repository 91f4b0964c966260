"""The processes as an operator runs them: each told where the servers are, started again when it ends."""

import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from ops.process_roles import LOGIN_OF, LOGINS, WORKERS
from ops.servers.ports import Claims, choose_ports
from ops.settings import environment
from support.outages.hosts import Host
from support.stack import WAXSEAL
from support.waiting import wait_for

ROLES: Final = tuple(role for role in WORKERS if not role.startswith(("mail-", "eraser")))
AGAIN: Final = 1.0  # seconds after which what ended is started again, as systemd is told to
PASSWORD: Final = "failover"


@dataclass(frozen=True)
class Program:
    """A version of the program: its command, and what that needs in its environment."""

    command: Sequence[str]
    environment: Mapping[str, str]


THIS: Final = Program(WAXSEAL, {})


class Crew:
    """One process of each role, from `start` to `stop`. `ends` names those that ended by themselves."""

    def __init__(
        self,
        folder: Path,
        database_url: Callable[[str, str], str],
        settings: dict[str, str],
        program: Program = THIS,
        hosts: Mapping[str, Host] | None = None,
        roles: Sequence[str] = ROLES,
    ) -> None:
        """`database_url` is given a login and its password; `hosts` are those of roles that are not to run on this one."""
        self._hosts = hosts or {}
        self._roles = tuple(dict.fromkeys((*roles, *self._hosts)))
        self._programs = dict.fromkeys(self._roles, program)
        self._folder = folder
        self._database_url = database_url
        self._settings = settings
        self._claims = Claims()
        self.ports = choose_ports((*self._roles, "pages"), {}, claims=self._claims)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._restart, daemon=True)
        self.ends: list[str] = []

    @property
    def ingress_url(self) -> str:
        return self._url("ingress")

    def start(self) -> None:
        self._watch.start()

    def stop(self) -> None:
        self._stopping.set()
        self._watch.join()
        self._claims.release()

    def ready(self) -> bool:
        return all(self._is_ready(role) for role in self._roles)

    def replace(self, role: str, program: Program) -> None:
        """Ends the process of the role, and runs this program in its place. Returns when it is ready."""
        self._programs[role] = program
        self._running[role].terminate()
        self._running[role].wait(30)
        wait_for(lambda: self._running[role].poll() is None and self._is_ready(role), 30)

    def command(self, *arguments: str, url: str | None = None, program: Program = THIS) -> "subprocess.CompletedProcess[str]":
        """Runs a command as an operator does."""
        told = self._told("verifier") if url is None else {**self._told("verifier"), "WAXSEAL_DATABASE_URL": url}
        return subprocess.run(
            [*program.command, *arguments],
            env={**told, **program.environment},
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    def _url(self, role: str) -> str:
        return f"http://{self._hosts[role].address if role in self._hosts else '127.0.0.1'}:{self.ports[role]}"

    def _enter(self, role: str) -> Sequence[str]:
        return self._hosts[role].enter if role in self._hosts else ()

    def _is_ready(self, role: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url(role)}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _restart(self) -> None:
        """In a thread that lives as long as they do."""
        while not self._stopping.wait(0.2):
            for role in self._roles:
                if role not in self._running or self._running[role].poll() is not None:
                    if role in self._running:
                        self.ends.append(f"{role} exited with {self._running[role].returncode}")
                        time.sleep(AGAIN)
                    self._running[role] = self._started(role)
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _started(self, role: str) -> "subprocess.Popen[bytes]":
        program = self._programs[role]
        told = {**self._told(role), **program.environment}
        with (self._folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [*self._enter(role), *program.command, role], env=told, cwd=self._folder, stdout=log, stderr=log
            )

    def _told(self, role: str) -> dict[str, str]:
        port = str(self.ports[role])
        own = {"METRICS_PORT": port, "INGRESS_PORT": port, "CONSOLE_PORT": str(self.ports["pages"])}
        if role in self._hosts:
            own |= {"METRICS_HOST": self._hosts[role].address, "INGRESS_HOST": self._hosts[role].address}
        told = {**self._settings, **own, "DATABASE_URL": self._database_url(LOGIN_OF[role].name, PASSWORD)}
        return {**environment(), "PYTHONUNBUFFERED": "1", **{f"WAXSEAL_{name}": value for name, value in told.items()}}


def make_logins(owner_url: str) -> None:
    """As the page on operating says."""
    with psycopg.connect(owner_url, autocommit=True) as conn:
        for login in LOGINS:
            conn.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                    sql.Identifier(login.name), sql.Literal(PASSWORD), sql.Identifier(login.member_of)
                )
            )
