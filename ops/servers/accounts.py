"""Accounts of the operating system: the one that servers run under, never root, and that of the user who gives a command."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ops.runtime.durable_files import make_folders, replace_durably


@dataclass(frozen=True)
class Account:
    """An unprivileged user that we, being root, start a server as."""

    name: str
    uid: int
    gid: int


def login_name() -> str:
    """The user who gives this command: the login name, also after `su`; without a terminal, the account of the process."""
    try:
        return os.getlogin()
    except OSError:
        pass
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def server_account(preferred: str) -> Account | None:
    """Give the account for a server: None (our own) unless we are root, else the preferred one, or `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in (preferred, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    return Account("65534", 65534, 65534)


class Switch(TypedDict, total=False):
    """The arguments that make `subprocess` change the account."""

    user: int
    group: int
    extra_groups: list[int]


def switch_to(account: Account | None) -> Switch:
    """Give the arguments of `subprocess` that run a command as the account; none for our own."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def can_enter(account: Account | None, folder: Path) -> bool:
    """Whether the account can reach the contents of `folder`; the kernel decides, so ACLs and mounts count too."""
    if account is None:
        return os.access(folder, os.X_OK)
    command = ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]
    probe = subprocess.run(command, cwd="/", capture_output=True, check=False, timeout=10, **switch_to(account))
    return probe.returncode == 0


def make_folder(folder: Path) -> None:
    """Make a folder that others can pass through but not list; one that exists is left as it is."""
    if not folder.is_dir():
        make_folders(folder)
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)


def own_folder(folder: Path, account: Account | None) -> Path:
    """Make `folder` unless it exists, and let only the account enter it."""
    make_folders(folder)
    folder.chmod(0o700)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    return folder


def own_file(path: Path, text: str, account: Account | None, mode: int = 0o600) -> None:
    """Write a file that only the account can read, atomically; it is on disk when this returns."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)
    replace_durably(fresh, path)
