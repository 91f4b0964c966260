"""The configuration as a whole: shown without its secrets, and applied from an uploaded file if it is still what was read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, Engine

from ops.admin.read_session import snapshot
from ops.admin.views import View
from ops.config.apply import Difference, apply_config
from ops.config.diff import Change
from ops.config.read_file import ConfigRead, read_upload
from ops.errors import OpsError
from ops.runtime.db import transaction
from ops.settings import Settings, environment
from pipeline.store.admin import audit
from pipeline.store.config import configured
from schemas.access import By


class Stale(OpsError):
    """The configuration is not any more what was read."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to apply: without writing, removing what the file does not name, enabling endpoints, giving up their deliveries."""

    dry_run: bool = False
    prune: bool = False
    enable: bool = False
    give_up: bool = False


def read(settings: Settings, raw: bytes) -> ConfigRead:
    """The uploaded file, its secrets taken from the variables that the settings name for uploads. Raises `Misconfigured`."""
    names = [each.strip() for each in settings.console_environment.split(",") if each.strip()]
    known = {name: value for name, value in environment().items() if any(fnmatchcase(name, each) for each in names)}
    return read_upload(raw, known)


def shown(reads: Engine, acts: Engine) -> View:
    """What is configured, never a secret. `etag` changes with any of it, secrets included."""
    with transaction(acts) as conn:
        etag = configured.digest(conn)
    with snapshot(reads) as conn:
        parts = configured.parts(conn)
    return {"etag": etag, **{name: [dict(row) for row in rows] for name, rows in parts.items()}}


def apply(settings: Settings, raw: bytes, etag: str, options: Options, by: By) -> View:
    """Applies an uploaded file if `etag` is still that of the configuration; returns what changed, or with `dry_run` would.

    New secrets of endpoints are in the answer, and nowhere else. Raises `Stale`; `BadConfig` with all faults of the file, of
    which one is a secret that is neither in it nor in one of the variables that the settings name for uploads;
    `NeedsConfirmation`.
    """

    def check(conn: Connection, changes: Sequence[Change]) -> None:
        if configured.digest(conn) != etag:
            raise Stale("the configuration was changed since you have read it: read it again, and compare")
        if not options.dry_run:
            changed = sum(each.action in ("created", "changed", "removed") for each in changes)
            about = {"prune": options.prune, "enable": options.enable, "give_up": options.give_up}
            audit.record(conn, by, "configuration apply", about, changed, datetime.now(UTC), "done")

    read_file = read(settings, raw)
    given = {"dry_run": options.dry_run, "prune": options.prune, "enable": options.enable, "give_up": options.give_up}
    return _view(apply_config(read_file, settings, **given, who=by, agreed=check))


def _view(difference: Difference) -> View:
    return {
        "dry_run": difference.dry_run,
        "changes": _changes(difference.changes),
        "gives_up": difference.gives_up,
        "warnings": list(difference.warnings),
        "secrets": dict(difference.generated),
    }


def _changes(changes: Sequence[Change]) -> list[dict[str, Any]]:
    return [
        {
            "action": each.action,
            "item": each.item,
            "tenant": each.tenant,
            "name": each.name,
            "details": list(each.details),
        }
        for each in changes
        if each.action != "unchanged"
    ]
