"""DIR/stack.json: the addresses and pids of a running system. It is kept after a stop, without pids, for the addresses."""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.errors import OpsError
from ops.process_roles import SERVERS, SUPERVISOR, WORKERS
from ops.servers.accounts import own_file
from ops.servers.child import Child
from ops.servers.process_tree import SeenProcess, end, see
from ops.settings import PREFIX, Settings, load_settings, require, settings_of

FILE: Final = "stack.json"
FIRST: Final = "console-token"  # beside it, until its owner deletes it: the first token, if `up` had no terminal to show it on
_STOP_SECONDS: Final = 10.0  # the kernel sent them a signal already, when their supervisor died


@dataclass
class Stack:
    """The contents of stack.json. `started` has each pid's start time, so that a reused pid is not mistaken for ours.

    `processes` has, by name, each process's role and pid, how often it was restarted, and how the one before ended.
    """

    ingress_url: str
    amqp_url: str
    database_url: str
    keys_file: str
    blobs: str
    allow_networks: str = ""
    log_files: str = ""
    log_origin: str = ""
    console_url: str | None = None
    prometheus_url: str | None = None
    metrics: dict[str, str] = field(default_factory=dict)
    pids: dict[str, list[int]] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)
    ready: bool = False

    def keep(self, data: Path, running: Iterable[Child], *, ready: bool) -> None:
        """Write the running processes to the file, atomically; only the owner can read it, as it holds passwords."""
        present = [(child, child.seen) for child in running if child.seen is not None]
        found = [(child.role, seen) for child, seen in present]
        self.processes = {
            child.name: {"role": child.role, "pid": seen.pid, "restarts": child.restarts, "last_end": child.last_end}
            for child, seen in present
        }
        if me := see(os.getpid()):
            found.append((SUPERVISOR, me))
            self.processes[SUPERVISOR] = {"role": SUPERVISOR, "pid": me.pid, "restarts": 0, "last_end": ""}
        self.ready = ready
        self.started = {str(seen.pid): seen.started for _, seen in found}
        self.pids = {role: [] for role in (*WORKERS, *SERVERS, SUPERVISOR)}
        for role, seen in found:
            self.pids.setdefault(role, []).append(seen.pid)
        _write(data, vars(self))


def read_stack(data: Path) -> dict[str, Any] | None:
    """Read what is known of the system on `data`; None if there never was one. Raises `OpsError` for a damaged file."""
    try:
        known: dict[str, Any] = json.loads((data / FILE).read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OpsError(f"{data / FILE} is damaged ({error}): remove it and run `waxseal up`") from error
    return known


def end_recorded(data: Path) -> int:
    """End the workers that stack.json still lists, and clear the list; returns how many were alive. Servers stay."""
    known = read_stack(data)
    if known is None:
        return 0
    recorded = [SeenProcess(int(pid), started) for pid, started in known.get("started", {}).items()]
    alive = [seen for seen in recorded if seen.pid != os.getpid() and seen.alive()]
    servers = {pid for role in SERVERS for pid in known["pids"].get(role, [])}
    workers = {seen: signal.SIGTERM for seen in alive if seen.pid not in servers}
    end(workers, _STOP_SECONDS)
    _write(data, {**known, "ready": False, "started": {}, "processes": {}, "pids": {role: [] for role in known["pids"]}})
    return len(workers)


def settings_for(data: Path, *needed: str) -> Settings:
    """Read the environment; settings that it lacks are taken from the system on `data`, if there is one.

    Raises `Misconfigured` when a needed setting is in neither.
    """
    settings = load_settings()
    given = _known(data)
    if settings.keys:
        given.pop("keys_file", None)
    missing = {name: value for name, value in given.items() if name not in settings.model_fields_set}
    settings = settings.model_copy(update=missing)
    require(settings, *needed)
    return settings


def settings_elsewhere(place: Path) -> Settings:
    """The settings of another system: of one that `up` started on the folder `place`, or as that file lists its variables.

    The environment of this process, which is another system's, counts for nothing. Raises `OpsError`.
    """
    if place.is_dir():
        if not (given := _known(place)):
            raise OpsError(f"no system was started on {place}: name its folder, or a file of its WAXSEAL_ variables")
        return settings_of(given)
    try:
        lines = [line.strip().removeprefix("export ") for line in place.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OpsError(f"{place} is neither a folder of `waxseal up` nor a file of variables: {error}") from error
    named = [line.partition("=") for line in lines if line.startswith(PREFIX)]
    return settings_of({name.removeprefix(PREFIX).strip().lower(): value.strip().strip("'\"") for name, _, value in named})


def _known(data: Path) -> dict[str, Any]:
    """What stack.json says of the settings."""
    known = read_stack(data) or {}
    names = ("database_url", "amqp_url", "blobs", "allow_networks", "log_files", "log_origin")
    given: dict[str, Any] = {name: known[name] for name in names if name in known}
    if known.get("keys_file"):  # empty when the system got its keys from WAXSEAL_KEYS
        given["keys_file"] = Path(known["keys_file"])
    return given


def _write(data: Path, content: dict[str, Any]) -> None:
    own_file(data / FILE, json.dumps(content, indent=1) + "\n", None)
