"""Logs: one line per fact, on stderr; as readable text on a terminal, as JSON elsewhere.

An event is named by a fact in the past tense (`batch_appended`, `delivery_settled`) and carries its figures as fields:
`log = structlog.get_logger(); log.info("batch_appended", events=812, seconds=0.07)`. Bind fields for a while with
`structlog.contextvars.bound_contextvars(event_id=…)`: worker threads live long, so bound fields must be unbound.
Lines that other libraries log through `logging` have the same form.
"""

import json
import logging
import os
import sys
from contextlib import suppress
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ops.runtime.redact import redact

Mode = Literal["console", "json", "auto"]

# At INFO pika logs every step of every connection; the others log requests, and statements with their parameters.
_CHATTY = ("pika", "sqlalchemy", "ops.runtime.db", "aiohttp.access", "asyncio")
_OWN_HANDLERS = ("dramatiq", "pika")

# Cached loggers keep a reference to this list, so it is changed in place.
_processors: list[Processor] = []


def configure(mode: Mode, level: str, process: str) -> None:
    """Send every log line of this process to stderr, from `level` up, under the name `process`.

    Call it once, before any logger is used. Raises `ValueError` for a level that does not exist.
    """
    number = _level(level)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
        structlog.processors.format_exc_info,
    ]
    _processors[:] = [*shared, redact, _renderer(mode)]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=True,
    )
    _route_stdlib(number, shared, _renderer(mode))


def _level(name: str) -> int:
    levels = logging.getLevelNamesMapping()
    try:
        return levels[name.strip().upper()]
    except KeyError:
        raise ValueError(f"unknown log level {name!r}: use debug, info, warning, error or critical") from None


def _named(process: str) -> Processor:
    def add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        event.setdefault("pid", os.getpid())
        return event

    return add_process


def _renderer(mode: Mode) -> Processor:
    terminal = bool(sys.stderr and sys.stderr.isatty())
    if mode == "console" or (mode == "auto" and terminal):
        # The plain formatter, because the rich one prints local variables, and with them secrets.
        plain = structlog.dev.plain_traceback
        return structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=plain)
    return structlog.processors.JSONRenderer(serializer=_json)


def _json(event: EventDict, **_: Any) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(event)


def _route_stdlib(level: int, shared: list[Processor], renderer: Processor) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
    )
    handler = _StderrHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in _OWN_HANDLERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _write(line: str) -> None:
    # sys.stderr is looked up for each line, because dramatiq and test runners replace it. A closed pipe of the logs must not
    # stop a delivery.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(line + "\n")


class _Stderr:
    """The output of structlog: one write for each line, so that lines of different threads do not mix."""

    def msg(self, line: str) -> None:
        _write(line)

    debug = info = warning = warn = error = exception = critical = fatal = log = failure = msg


class _StderrHandler(logging.Handler):
    """The output of the standard library's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self.format(record))
        except Exception:  # noqa: BLE001 - by logging's convention, a record that cannot be formatted is reported
            self.handleError(record)
