"""The command that runs the demo."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".waxseal/demo"),
    show_default=True,
    help="The demo's own data folder; its ledger is kept.",
)
def demo(data: Path) -> None:
    """Run the whole system and send real traffic through it.

    Private servers, signed webhooks, CloudEvents over AMQP, a duplicate, a forgery, an endpoint that recovers and one that
    never does; shows what became of each, verifies the ledger, and stops everything. Takes less than a minute.

    Example: waxseal demo
    """
    from ops.demo.run import demo as run
    from workers.commands.demo_publisher import Published, publish

    # SIGTERM raises KeyboardInterrupt, so that the demo stops the processes that it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def send(amqp_url: str, routing_key: str, body: bytes, properties: Mapping[str, Any]) -> None:
        publish(amqp_url, [Published(routing_key, body, dict(properties))])

    run(data, send)


COMMANDS: tuple[click.Command, ...] = (demo,)
