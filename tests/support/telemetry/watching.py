"""A real Prometheus with rules loaded, which alerts fire there, and which of them a real Alertmanager would tell."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from ops.servers.child import Child, stop, wait_ready
from ops.servers.prometheus import Watch, prometheus_child, prometheus_url
from support.net.ports import free_port
from support.waiting import wait_for

Labels = Mapping[str, str]

#: Labels that say how an alert is treated, or where the process is, and not what it is about.
_BESIDE = {"alertname", "__name__", "alertstate", "severity", "job", "instance"}


def shown(labels: Labels) -> str:
    """An alert in short: its name, and what it is about."""
    about = ", ".join(value for name, value in sorted(labels.items()) if name not in _BESIDE)
    return labels["alertname"] + (f"({about})" if about else "")


def _own(series: Labels) -> Labels:
    """The labels of the alert that a series of ALERTS is of."""
    return {name: value for name, value in series.items() if name not in ("__name__", "alertstate")}


class Watched:
    """The API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def raised(self) -> list[str]:
        """The alerts that fire now, or will if what they see lasts."""
        return [f"{shown(each['labels'])} {each['state']}" for each in self._ask("alerts")["alerts"]]

    def fired(self, since: float) -> dict[str, Labels]:
        """Every alert that has fired since then, in Unix seconds, however shortly."""
        seconds = int(time.time() - since) + 1
        found = self._ask("query", query=f'last_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])')["result"]
        return {shown(each["metric"]): _own(each["metric"]) for each in found}

    def samples(self, metrics: Iterable[str], since: float) -> list[tuple[Labels, list[tuple[float, float]]]]:
        """What was scraped of these metrics since then: the labels of each series, and its values with their times."""
        seconds = int(time.time() - since) + 1
        found = self._ask("query", query=f'{{__name__=~"{"|".join(metrics)}"}}[{seconds}s]')["result"]
        return [(each["metric"], [(float(at), float(value)) for at, value in each["values"]]) for each in found]

    def value(self, query: str) -> float | None:
        """The one value of a query."""
        found = self._ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def _ask(self, what: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{what}?{urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]


@contextmanager
def running(child: Child) -> Iterator[None]:
    """Runs a program, which is ready at the beginning of the block, until its end."""
    try:
        child.start()
        wait_ready([child], 60)
        yield
    finally:
        stop([child], 10)


@contextmanager
def watching(home: Path, watch: Watch) -> Iterator[Watched]:
    """A Prometheus, while the block runs."""
    port = free_port()
    with running(prometheus_child(home, port, watch, None, home / "log")):
        yield Watched(prometheus_url(port))


Told = Callable[[Iterable[Labels]], set[str]]


@contextmanager
def alertmanager(home: Path, configuration: Path) -> Iterator[Told]:
    """An Alertmanager, while the block runs, as a function: which of the alerts that fire together it tells somebody.

    If it is not installed, the test fails and is never skipped.
    """
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.fail("prometheus-alertmanager is not on this machine (`make test` installs it, where apt can)")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.path={home}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: _answers(f"{url}/-/ready"), 60)
        yield lambda firing: _told(f"{url}/api/v2/alerts", list(firing))
    finally:
        process.terminate()
        process.wait(30)


def _told(url: str, firing: list[Labels]) -> set[str]:
    now = datetime.now(UTC)
    _send(url, firing, now + timedelta(hours=1))
    wait_for(lambda: len(_list(url)) == len(firing))
    told = {shown(each["labels"]) for each in _list(url) if not each["status"]["inhibitedBy"]}
    _send(url, firing, now)  # over, so that the next question finds none of them
    wait_for(lambda: not _list(url))
    return told


def _send(url: str, alerts: list[Labels], until: datetime) -> None:
    ends = {"startsAt": (until - timedelta(hours=2)).isoformat(), "endsAt": until.isoformat()}
    body = json.dumps([{"labels": labels, **ends} for labels in alerts]).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=30).close()


def _list(url: str) -> list[Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return list(json.load(answer))


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
