"""A private Prometheus that scrapes a system's processes and has the alert rules loaded: for `waxseal up --observe`."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ops.prometheus import RULES
from ops.servers.accounts import Account, own_file, own_folder
from ops.servers.binaries import find_prometheus
from ops.servers.child import Child
from ops.servers.leftovers import end_leftovers
from ops.servers.ports import LOOPBACK
from ops.settings import environment

PROMETHEUS: Final = "prometheus"
_KEPT: Final = "35d"  # the objectives are over 30 days


@dataclass(frozen=True)
class Target:
    """A process to scrape: its role and the URL of its metrics."""

    role: str
    url: str


@dataclass(frozen=True)
class Watch:
    """What Prometheus does, and how often, in seconds. `rules` are read when it starts."""

    targets: Iterable[Target]
    rules: Iterable[Path] = RULES
    every: int = 5


def prometheus_url(port: int) -> str:
    """Give the address of its pages and its API."""
    return f"http://{LOOPBACK}:{port}"


def prometheus_child(home: Path, port: int, watch: Watch, account: Account | None, log: Path) -> Child:
    """Prepare a Prometheus whose data is in `home` and describe its process. Raises `ServersMissing`."""
    program = find_prometheus()
    own_folder(home, account)
    rules = [_copied(rule, home, account) for rule in watch.rules]
    own_file(home / "prometheus.yml", json.dumps(_configuration(watch, rules)), account)  # JSON is YAML
    return Child(
        name=PROMETHEUS,
        role=PROMETHEUS,
        command=[
            str(program),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--storage.tsdb.retention.time={_KEPT}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ],
        environment={"PATH": environment().get("PATH", "/usr/bin:/bin"), "HOME": str(home)},
        log=log,
        folder=home,
        ready=lambda: _is_ready(prometheus_url(port)),
        clear=lambda: end_leftovers(home),
        account=account,
    )


def _copied(rule: Path, home: Path, account: Account | None) -> str:
    """Prometheus' account may not be able to read ours."""
    own_file(home / rule.name, rule.read_text(encoding="utf-8"), account)
    return rule.name


def _configuration(watch: Watch, rules: list[str]) -> dict[str, Any]:
    every = f"{watch.every}s"
    found = [{"targets": [urlsplit(each.url).netloc], "labels": {"role": each.role}} for each in watch.targets]
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
        "rule_files": rules,
        "scrape_configs": [{"job_name": "waxseal", "static_configs": found}],
    }


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=3) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False
