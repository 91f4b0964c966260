"""Checks of this machine: settings, processes, ports, disks, the blob store, and DNS."""

import ipaddress
import socket
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import RowMapping as Row

from ops.admin.asked import Asked, Unheard
from ops.admin.doctor.finding import Finding, note, ok, wrong
from ops.admin.status.members import Member, Questions
from ops.errors import OpsError
from ops.runtime.blobs import Blobs
from ops.servers.ports import is_free
from ops.settings import PREFIX, Settings
from ops.telemetry.disks import room
from pipeline.errors import BlobLost, BlobsAway

_LOW: Final = 2**30  # bytes free on a disk below which it is as good as full
_LOW_SHARE: Final = 0.05
_DNS_SECONDS: Final = 5.0
_BLOB_SECONDS: Final = 5.0
_LOCAL: Final = frozenset({"localhost"})


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Python, and what must be set beside the URLs."""
    yield ok("python", sys.version.split()[0])
    try:
        keys = settings.fernet_keys()
    except OpsError as error:
        yield wrong("keys", str(error), "let WAXSEAL_KEYS_FILE name a file that this user can read")
        return
    if not keys:
        mend = 'export WAXSEAL_KEYS="$(waxseal key)" once, and keep it; or WAXSEAL_KEYS_FILE'
        yield wrong("keys", "none is set: secrets can be neither stored nor read", mend)
    if settings.prefetch < 2 * settings.batch_size:
        mend = f"set {PREFIX}PREFETCH to {2 * settings.batch_size} or more"
        yield wrong("prefetch", f"{settings.prefetch}, less than twice the batch size of {settings.batch_size}", mend)


def check_processes(known: Sequence[Member] | None, data: Path) -> Iterator[Finding]:
    """The processes that `waxseal up` started here: whether they run and are ready."""
    if not known:
        yield note("processes", "`waxseal up` runs none here", f"look at them where they run, or `waxseal up --data {data}`")
        return
    urls = [each.url for each in known if each.url and each.seen.alive()]
    questions = Questions()
    questions.ask(urls)
    said = questions.answers(urls)
    faults = []
    for each in known:
        log = f"see {data / 'log' / each.name}.log"
        if not each.seen.alive():
            faults.append(wrong("processes", f"{each.name} does not run{_before(each)}", log))
        elif each.url is not None and (unready := said[each.url].unready) is not None:
            faults.append(wrong("processes", f"{each.name} is not ready: {unready}", log))
    yield from faults
    if not faults:
        yield ok("processes", f"{len(known)} run and are ready")


def check_ports(settings: Settings, known: Sequence[Member] | None) -> Iterator[Finding]:
    """Whether the ingress could listen, unless it does already."""
    if any(each.role == "ingress" and each.seen.alive() for each in known or ()):
        yield ok("ports", "the ingress listens")
    elif settings.ingress_port and not is_free(settings.ingress_port):
        mend = f"end the program that has it, or set {PREFIX}INGRESS_PORT"
        state = note if known is None else wrong  # elsewhere it may be the ingress itself
        yield state("ports", f"port {settings.ingress_port}, the ingress', is in use", mend)
    else:
        yield ok("ports", f"port {settings.ingress_port or 'any'} is free for the ingress")


def check_disks(places: dict[str, Path]) -> Iterator[Finding]:
    """The free space of the disks that hold these folders, if they are on this machine."""
    for what, place in places.items():
        disk = room(place)
        said = f"{what}: {disk.free / 2**30:.1f} of {disk.size / 2**30:.1f} GiB free"
        if disk.free < _LOW or disk.free < _LOW_SHARE * disk.size:
            yield wrong("disk", said, "free space or grow the disk; `waxseal prune` shows what Waxseal can drop")
        else:
            yield ok("disk", said)


def check_blobs(settings: Settings) -> Finding:
    """Store, read and delete a small body."""
    place = settings.blobs
    if not place.startswith("s3://") and not Path(place).is_dir():
        mend = f"let {PREFIX}BLOBS name a folder that all processes share"
        return note("blob store", f"{place} is not there; the first large body makes it", mend)
    try:
        Blobs(place, _BLOB_SECONDS).probe()
    except (BlobsAway, BlobLost, ValueError, OSError) as error:
        mend = f"let {PREFIX}BLOBS name a folder that this user can write, or s3://bucket/prefix, with credentials in AWS_…"
        return wrong("blob store", f"{place}: {error}", mend)
    return ok("blob store", f"{place} stores, gives back and deletes")


def check_names(rows: Sequence[Row]) -> Iterator[Finding]:
    """Whether the names of endpoints' and mailboxes' hosts have addresses."""
    hosts: dict[str, list[str]] = {}
    for row in rows:
        host = row["host"] or (urlsplit(row["url"]).hostname if row["url"] else None)
        if host and host not in _LOCAL and not _is_address(host):
            hosts.setdefault(host, []).append(f"{row['kind']} {row['name']}")
    faults = _look_up(list(hosts))
    for host, error in faults.items():
        users = ", ".join(hosts[host][:5])
        yield wrong("DNS", f"{host} has no address ({error}); used by {users}", "correct the name, or this machine's resolver")
    if not faults:
        yield ok("DNS", f"{len(hosts)} names of endpoints and mailboxes have addresses")


def _look_up(hosts: Sequence[str]) -> dict[str, str]:
    """The names that have no address, and why, within seconds: a resolver may not answer at all."""
    asked: dict[str, Asked[object]] = {}
    faults = {}
    for host in hosts:
        asked[host] = Asked()
        asked[host].ask(partial(socket.getaddrinfo, host, None))
    for host, question in asked.items():
        try:
            question.answer(_DNS_SECONDS)
        except (OSError, Unheard, UnicodeError) as error:
            faults[host] = str(error)
    return faults


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _before(member: Member) -> str:
    return f"; before: {member.last_end}" if member.last_end else ""
