"""Recording a span must never fail the work that it describes: a batch would be written again, a delivery sent again."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import structlog

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

_log = structlog.get_logger()


def harmless(record: Callable[_Given, _Result]) -> Callable[_Given, _Result | None]:
    """Have `record` log what it would raise, and give None."""

    @wraps(record)
    def recorded(*given: _Given.args, **named: _Given.kwargs) -> _Result | None:
        try:
            return record(*given, **named)
        except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
            _log.error("span_not_recorded", step=record.__qualname__, error=repr(error)[:200])
            return None

    return recorded
