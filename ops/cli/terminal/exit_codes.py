"""Exit codes from what commands return, and one line for every error."""

import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

FAILED = 2
INTERRUPTED = 130

_SILENT = (
    ("sqlalchemy.exc", "OperationalError", "database", "WAXSEAL_DATABASE_URL"),
    ("psycopg", "OperationalError", "database", "WAXSEAL_DATABASE_URL"),
    ("pika.exceptions", "AMQPError", "broker", "WAXSEAL_AMQP_URL"),
    ("pika.adapters.utils.connection_workflow", "AMQPConnectorException", "broker", "WAXSEAL_AMQP_URL"),
)


class PlainGroup(click.Group):
    """Commands whose returned number is the exit code (None is 0) and whose errors are one line and exit code 2.

    WAXSEAL_DEBUG=1 shows the traceback too.
    """

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run a command and exit."""
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has closed the pipe; without this, Python would report an error when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:  # noqa: BLE001 - every error becomes one line, not a traceback
            _show(error)
            sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help, with exit code 0, if there are no arguments."""
        return super().parse_args(ctx, args or ["--help"])


def _show(error: Exception) -> None:
    from ops.settings import debug_wanted  # noqa: PLC0415 - only when something went wrong

    if debug_wanted():
        traceback.print_exception(error)
    click.echo(f"Error: {explain(error)}", err=True)


def explain(error: Exception) -> str:
    """Say in one line what went wrong and what to do."""
    from ops.errors import OpsError  # noqa: PLC0415

    if isinstance(error, OpsError):
        return str(error)
    if _is_from("pipeline.errors", "BlobsAway", error):
        return f"{error}: check WAXSEAL_BLOBS"
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        return error.format_message() + (f" (see `{context.command_path} --help`)" if context else "")
    if advice := _of_server(error):
        return advice
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    return f"unexpected {type(error).__name__}: {_first_line(error)} (WAXSEAL_DEBUG=1 shows where)"


def _of_server(error: Exception) -> str | None:
    """The line for an error of the database or the broker; None for other errors."""
    if _is_from("psycopg", "Error", getattr(error, "orig", error)):
        from ops.runtime.db import damaged  # noqa: PLC0415 - psycopg is loaded already

        if damaged(error):
            return f"Postgres cannot read its files ({_first_line(error)}): operating.md says what to do about a damaged page"
    for module, name, what, variable in _SILENT:
        if _is_from(module, name, error):
            return f"the {what} does not answer ({_first_line(error)}): start it with `waxseal up`, or check {variable}"
    return None


def _is_from(module: str, name: str, error: Exception) -> bool:
    """Whether `error` is of that class. Does not import the module: if it is not loaded, the error is not from it."""
    loaded: Mapping[str, Any] = sys.modules
    return module in loaded and isinstance(error, getattr(loaded[module], name))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no details"
