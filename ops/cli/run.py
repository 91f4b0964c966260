"""Commands that run things: the whole system, its schema, and each process on its own."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ops.settings import Settings

DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".waxseal"),
    show_default=True,
    help="The data folder.",
)


@click.command()
@DATA
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of tenants, sources and endpoints, applied before the workers start.",
)
@click.option("--detach", is_flag=True, help="Return when everything is ready, and keep running in the background.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Ingest and deliver processes.")
def up(data: Path, config: Path | None, detach: bool, workers: int) -> None:
    """Start the whole system on private servers.

    PostgreSQL and RabbitMQ in the data folder, the schema, and all processes, which are restarted when they die. The
    addresses and pids are in DIR/stack.json, the logs in DIR/log. Ctrl-C or `waxseal down` stops it all cleanly; `up` on
    the same folder resumes with all data.

    Example: waxseal up --config waxseal.yaml --detach
    """
    from ops.settings import load_settings

    settings = load_settings()
    if detach:
        from ops.detach import up_detached

        arguments = ["--workers", str(workers), *(["--config", str(config)] if config else [])]
        click.echo(up_detached(data.absolute(), arguments))
        return
    from ops.crew import full_crew
    from ops.up import Plan
    from ops.up import up as bring_up

    bring_up(Plan(data.absolute(), settings, full_crew(workers), config))


@click.command()
@DATA
@click.option("--delete-data", is_flag=True, help="Then remove the ledger, the queues, the keys and the logs.")
@click.option("--yes", is_flag=True, help="Needed to delete data.")
def down(data: Path, delete_data: bool, yes: bool) -> None:
    """Stop all that `up` started.

    Works too when the supervisor was killed, and is harmless when nothing runs.

    Example: waxseal down
    """
    from ops import down as stopping

    if delete_data and not yes:
        raise click.UsageError("--delete-data removes the ledger for good: add --yes", click.get_current_context())
    click.echo(stopping.down(data.absolute()))
    if delete_data:
        stopping.delete_data(data.absolute())
        click.echo(f"removed all data of {data}")


@click.command()
@DATA
@click.option(
    "--wait",
    type=click.FloatRange(0, 86_400),
    default=60,
    show_default=True,
    help="Seconds to try again for while other sessions hold locks on the tables.",
)
def migrate(data: Path, wait: float) -> None:
    """Bring the schema to its newest version.

    Needs the database's owner; changes nothing when the schema is up to date, or cannot be changed. It waits three seconds
    for a lock, since all who come after it wait too, says who holds it, and tries again.

    Example: WAXSEAL_DATABASE_URL=postgresql://owner:secret@db/waxseal waxseal migrate
    """
    from ops.migrate import migrate as bring_to_head
    from ops.stack import settings_for

    url = settings_for(data, "database_url").database_url
    bring_to_head(url, lambda line: click.echo(line, err=True), wait)
    click.echo("the schema is at its newest version")


@click.command()
def settings() -> None:
    """List the WAXSEAL_ variables.

    Each with its default and its meaning; the values in force are not shown, as some are secret.

    Example: waxseal settings
    """
    from ops.settings import described

    for variable, default, meaning in described():
        click.echo(f"{variable:<26}  {default or '-':<15}  {meaning}")


@click.command()
def key() -> None:
    """Make a key for secrets at rest.

    Put it first in WAXSEAL_KEYS; the keys behind it still decrypt what they encrypted. Who loses the keys loses the secrets.

    Example: export WAXSEAL_KEYS="$(waxseal key)"
    """
    from cryptography.fernet import Fernet

    click.echo(Fernet.generate_key().decode())


@click.command()
@DATA
def ingress(data: Path) -> None:
    """Run the HTTP ingress.

    It checks webhooks and answers 202 once RabbitMQ has them.

    Example: WAXSEAL_INGRESS_HOST=0.0.0.0 waxseal ingress
    """
    from workers.ingress import run

    _run(run, data, "database_url", "amqp_url", "keys")


@click.command()
@DATA
def ingest(data: Path) -> None:
    """Run an ingest process.

    It appends what arrives to the ledger. Run as many as you like.

    Example: waxseal ingest
    """
    from workers.ingest import run

    _run(run, data, "database_url", "amqp_url")


@click.command()
@DATA
def relay(data: Path) -> None:
    """Run the relay.

    It claims the deliveries that are due and hands them to the deliver processes.

    Example: waxseal relay
    """
    from workers.relay import run

    _run(run, data, "database_url", "amqp_url")


@click.command()
@DATA
def deliver(data: Path) -> None:
    """Run a deliver process.

    It sends to the endpoints. Run as many as you like.

    Example: waxseal deliver
    """
    from workers.delivery import run

    _run(run, data, "database_url", "amqp_url", "keys")


@click.command("mail-pull")
@DATA
def mail_pull(data: Path) -> None:
    """Run a mail-pull process.

    It reads the mailboxes that are due. Run as many as you like.

    Example: waxseal mail-pull
    """
    from workers.mail_pull import run

    _run(run, data, "database_url", "amqp_url", "keys")


@click.command("mail-idle")
@DATA
def mail_idle(data: Path) -> None:
    """Run the mail-idle process.

    It listens to IMAP mailboxes and has them read as soon as something arrives. Without it they are read when they are due.

    Example: waxseal mail-idle
    """
    from workers.mail_idle import run

    _run(run, data, "database_url", "keys")


def _run(run: "Callable[[Settings], int]", data: Path, *needed: str) -> None:
    from ops.reader import explained
    from ops.schema import fitting
    from ops.stack import settings_for

    settings = settings_for(data, *needed)
    with explained(), fitting(settings.database_url):
        code = run(settings)
    click.get_current_context().exit(code)


COMMANDS = (up, down, migrate, settings, key, ingress, ingest, relay, deliver, mail_pull, mail_idle)
