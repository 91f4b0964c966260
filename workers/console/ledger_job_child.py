"""The process that does one job on the ledger for the console: it is told what on standard input, and tells lines of JSON.

`{"done": 5000}` now and then, and at the end `{"result": {…}}` or `{"error": "…"}`. It ends when nobody reads them any more.
"""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import orjson

from ops.admin.jobs import arguments as given
from ops.admin.jobs import ledger_jobs
from ops.admin.jobs.arguments import OfLedger
from ops.errors import OpsError, one_line
from ops.runtime import gc_tuning
from ops.settings import Settings
from schemas.job import JobKind

#: What the settings were made of: the URLs name these files by now.
_LEFT_OUT: Final = {"database_password_file", "amqp_password_file"}
_TELL: Final = 0.5  # seconds between two lines about progress


def order(settings: Settings, kind: JobKind, tenant: str | None, arguments: Mapping[str, Any], job: tuple[int, UUID]) -> bytes:
    """What the process is told."""
    asked = {"kind": kind, "tenant": tenant, "arguments": dict(arguments), "id": job[0], "lease": str(job[1])}
    return orjson.dumps({**asked, "settings": settings.model_dump(mode="json", exclude=_LEFT_OUT, exclude_unset=True)})


def main() -> None:
    """Do the job."""
    asked = orjson.loads(sys.stdin.buffer.read())
    gc_tuning.tune()
    try:
        _tell({"result": _done(asked)})
    except BrokenPipeError:
        sys.stderr.close()  # nothing is to be said at the interpreter's end either
    except OpsError as error:
        _tell({"error": one_line(error)})
    except Exception as error:  # noqa: BLE001 - whatever it is, the job's row has to say
        _tell({"error": f"{type(error).__name__}: {one_line(error)}"})


def _done(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    settings, kind, tenant = Settings(**asked["settings"]), asked["kind"], asked["tenant"]
    arguments = given.read(kind, tenant, asked["arguments"])
    assert isinstance(arguments, OfLedger)
    if kind == "verify":
        return ledger_jobs.verify(settings, tenant, arguments, _sometimes())
    return ledger_jobs.export(settings, str(tenant), arguments, (asked["id"], UUID(asked["lease"])), _sometimes())


def _sometimes() -> Callable[[int], None]:
    told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _TELL:
            told = time.monotonic()
            _tell({"done": done})

    return tell


def _tell(what: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
