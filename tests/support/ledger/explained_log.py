"""The executed plans of all statements of a database's sessions, in triggers and functions too, from the server's log."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.waiting import wait_for

_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
}
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@dataclass(frozen=True)
class Plan:
    """A statement, and the nodes of its plan."""

    statement: str
    nodes: list[dict[str, Any]]


class ExplainedLog:
    """From now on, new sessions of the database are explained. Skips the test where the server has no `auto_explain`."""

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log
        with psycopg.connect(url, autocommit=True) as conn:
            try:
                conn.execute("LOAD 'auto_explain'")
            except psycopg.errors.UndefinedFile:
                pytest.skip("this build of Postgres has no auto_explain")
            for name, value in _SETTINGS.items():
                conn.execute(f"ALTER DATABASE {conn.info.dbname} SET {name} = '{value}'")
        self._read = log.stat().st_size

    def plans(self) -> list[Plan]:
        """Those since the last call. Waits until all sessions have ended: what they ran is in the log then."""
        with psycopg.connect(self._url.rpartition("/")[0] + "/postgres", autocommit=True) as conn:
            name = self._url.rpartition("/")[2]
            others = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
            wait_for(lambda: conn.execute(others, [name]).fetchone() == (0,))
        with self._log.open(errors="replace") as log:
            log.seek(self._read)
            text = log.read()
        self._read += len(text.encode(errors="replace"))
        return list(_plans(text))


def _plans(text: str) -> Iterator[Plan]:
    told: list[str] | None = None
    for line in [*text.splitlines(), "2000-01-01 00:00:00"]:
        if not _LINE.match(line):
            if told is not None:
                told.append(line)
            continue
        if told:
            plan = json.loads("\n".join(told))
            nodes, open_ = [], [plan["Plan"]]
            while open_:
                nodes.append(open_.pop())
                open_ += nodes[-1].get("Plans", [])
            yield Plan(plan["Query Text"], nodes)
        told = [] if line.endswith("plan:") else None
