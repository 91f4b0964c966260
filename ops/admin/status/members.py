"""The processes of a private system: whether each runs, since when, how often it was restarted, and what it says of itself."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from ops.admin.asked import Asked, Unheard
from ops.servers.process_tree import SeenProcess
from ops.settings import Settings
from ops.system.stack_file import read_stack

_SECONDS: Final = 4.0  # for an answer: a process gives its checks two
_LARGEST: Final = 4 * 2**20  # bytes of an answer
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names

#: What flows through each stage: a counter, and a label that it must have.
FLOWS: Final[Mapping[str, tuple[str, str]]] = {
    "receive": ("waxseal_ingress_responses_total", 'status="202"'),
    "record": ("waxseal_ingest_messages_total", 'outcome="accepted"'),
    "sequence": ("waxseal_log_leaves_total", ""),
    "try": ("waxseal_delivery_attempts_total", ""),
    "deliver": ("waxseal_deliveries_total", 'result="delivered"'),
    "bury": ("waxseal_dead_letters_total", ""),
}
_INBOX_AGE: Final = re.compile(r'^waxseal_queue_oldest_message_age_seconds\{queue="waxseal\.ingest"\} (\S+)', re.MULTILINE)
_COUNTED: Final = re.compile(
    rf"^({'|'.join(counter for counter, _ in FLOWS.values())})\{{(.*)\}} (\S+)", re.MULTILINE
)  # labels of these hold no brace


@dataclass(frozen=True, slots=True)
class Member:
    """A process as stack.json lists it; `url` is that of its metrics, None for a server."""

    name: str
    role: str
    seen: SeenProcess
    restarts: int
    last_end: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Said:
    """What a process says of itself: its counters by stage, and why it is not ready; None when it is."""

    flows: Mapping[str, float] = field(default_factory=dict)
    inbox_age: float | None = None
    unready: str | None = None


def members(data: Path, settings: Settings) -> list[Member] | None:
    """The processes of the system that the database belongs to; None for one that `waxseal up` did not start on `data`."""
    known = read_stack(data)
    if known is None or (settings.database_url and known["database_url"] != settings.database_url):
        return None
    urls, started = known.get("metrics", {}), known.get("started", {})
    listed = known.get("processes") or _by_role(known["pids"])
    return [
        Member(
            name=name,
            role=each["role"],
            seen=SeenProcess(each["pid"], started.get(str(each["pid"]), 0.0)),
            restarts=each.get("restarts", 0),
            last_end=each.get("last_end", ""),
            url=urls.get(name),
        )
        for name, each in listed.items()
    ]


def roles(data: Path) -> list[str]:
    """The roles that the system on `data` has processes for, in the order of the route."""
    return list((read_stack(data) or {}).get("pids", {}))


class Questions:
    """Asks processes for their counters and their readiness, all at once."""

    def __init__(self) -> None:
        self._asked: dict[str, Asked[Said]] = {}

    def ask(self, urls: Iterable[str]) -> None:
        """Begin to ask the processes with metrics at these addresses."""
        for url in urls:
            self._asked.setdefault(url, Asked()).ask(partial(_ask, url))

    def answers(self, urls: Iterable[str]) -> dict[str, Said]:
        """What each says, after a few seconds at most."""
        return {url: self._answer(url) for url in urls}

    def _answer(self, url: str) -> Said:
        try:
            return self._asked[url].answer(2 * _SECONDS)
        except (Unheard, OSError, ValueError) as error:
            return Said(unready=f"does not answer: {error}")


def age(member: Member) -> float:
    """Seconds since the process began."""
    return max(0.0, time.time() - member.seen.started)


def _ask(url: str) -> Said:
    status, ready = _get(f"{url.removesuffix('/metrics')}/readyz")
    _, text = _get(url)
    found = _INBOX_AGE.search(text)
    return Said(_flows(text), float(found[1]) if found else None, None if status == 200 else _reasons(ready))


def _get(url: str) -> tuple[int, str]:
    try:
        with _DIRECT.open(url, timeout=_SECONDS) as answer:
            return answer.status, answer.read(_LARGEST).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_LARGEST).decode(errors="replace")


def _flows(text: str) -> dict[str, float]:
    """The sums of the counters, by stage."""
    flows = dict.fromkeys(FLOWS, 0.0)
    for counter, labels, value in _COUNTED.findall(text):
        for stage, (wanted, label) in FLOWS.items():
            if counter == wanted and label in labels:
                flows[stage] += float(value)
    return flows


def _reasons(body: str) -> str:
    try:
        checks = orjson.loads(body)["checks"]
        return "; ".join(f"{name}: {said}" for name, said in checks.items() if said != "ok") or "not ready"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "not ready"


def _by_role(pids: Mapping[str, list[int]]) -> dict[str, dict[str, Any]]:
    """The processes in a stack.json of an older version, which does not name them."""
    return {
        role if number == 1 else f"{role}-{number}": {"role": role, "pid": pid}
        for role, found in pids.items()
        for number, pid in enumerate(found, 1)
    }
