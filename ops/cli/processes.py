"""Commands that run the whole system or one process, and those that prepare for it: schema, settings, keys."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.options import DATA

if TYPE_CHECKING:
    from ops.settings import Settings


@click.command()
@DATA
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of tenants, sources and endpoints, applied before the workers start.",
)
@click.option("--detach", is_flag=True, help="Return when everything is ready, and keep running in the background.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Number of ingest processes, and of deliver processes.",
)
@click.option("--observe", is_flag=True, help="Also start a private Prometheus with the alert rules, if it is installed.")
def up(data: Path, config: Path | None, detach: bool, workers: int, observe: bool) -> None:
    """Start the whole system on private servers.

    Starts PostgreSQL and RabbitMQ in the data folder, brings the schema up to date, and starts all processes. A process
    that dies is restarted. Addresses and pids are in stack.json in the data folder, logs in log. Ctrl-C or `waxseal down`
    stops everything; `up` on the same folder resumes with all data. The first `up` of a folder makes a token for the console
    and prints it once; when its output is not a terminal, the token is in console-token in the data folder.

    Example: waxseal up --config waxseal.yaml --detach
    """
    from ops.settings import load_settings

    settings = load_settings()
    if detach:
        from ops.system.detach import up_detached

        arguments = ["--workers", str(workers), *(["--config", str(config)] if config else [])]
        arguments += ["--observe"] if observe else []
        click.echo(up_detached(data.absolute(), arguments))
        return
    from ops.admin.access.first_token import first_token  # before what logs: see ops/plain_structlog.py
    from ops.system.roles import full_crew
    from ops.system.up import Plan
    from ops.system.up import up as bring_up

    bring_up(Plan(data.absolute(), settings, full_crew(workers), config, observe, first_token))


@click.command()
@DATA
@click.option("--delete-data", is_flag=True, help="Also remove the ledger, the queues, the keys and the logs.")
@click.option("--yes", is_flag=True, help="Needed to delete data.")
def down(data: Path, delete_data: bool, yes: bool) -> None:
    """Stop everything that `up` started.

    Works even if the supervisor was killed. Does nothing when nothing runs.

    Example: waxseal down
    """
    from ops.system import down as stopping

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
    help="Seconds to keep trying while other sessions hold locks on the tables.",
)
def migrate(data: Path, wait: float) -> None:
    """Bring the schema to its newest version.

    Needs the login of the database's owner. Changes nothing when the schema is up to date, or when a step fails. Waits three
    seconds for a lock, because all later statements queue behind it, then says who holds it and tries again.

    Example: WAXSEAL_DATABASE_URL=postgresql://owner:secret@db/waxseal waxseal migrate
    """
    from ops.migrate import migrate as bring_to_head
    from ops.system.stack_file import settings_for

    url = settings_for(data, "database_url").direct_url
    bring_to_head(url, lambda line: click.echo(line, err=True), wait)
    click.echo("the schema is at its newest version")


@click.command()
@click.option("--markdown", is_flag=True, help="Print the page ops/docs/settings.md.")
def settings(markdown: bool) -> None:
    """List the WAXSEAL_ variables, and OpenTelemetry's for traces.

    Each with its default and its meaning. The values in force are not shown, because some are secret.

    Example: waxseal settings
    """
    from ops.config.settings_page import TRACING, settings_page
    from ops.settings import described

    if markdown:
        click.echo(settings_page(), nl=False)
        return
    for variable, default, meaning in (*described(), *TRACING):
        click.echo(f"{variable:<26}  {default or '-':<15}  {meaning}")


@click.command()
def key() -> None:
    """Make a key for secrets at rest.

    The first key in WAXSEAL_KEYS encrypts; all of them decrypt. Keep the old keys. Without the keys the secrets are lost.

    Example: export WAXSEAL_KEYS="$(waxseal key)"
    """
    from cryptography.fernet import Fernet

    click.echo(Fernet.generate_key().decode())


@click.command()
@DATA
def ingress(data: Path) -> None:
    """Run the HTTP ingress.

    It checks webhooks and answers 202 when RabbitMQ has confirmed them.

    Example: WAXSEAL_INGRESS_HOST=0.0.0.0 waxseal ingress
    """
    from workers.ingress.worker import run

    run_process(run, data, "database_url", "amqp_url", "keys")


@click.command()
@DATA
def ingest(data: Path) -> None:
    """Run an ingest process.

    It records arriving messages in the ledger. Run as many as you need.

    Example: waxseal ingest
    """
    from workers.ingest.worker import run

    run_process(run, data, "database_url", "amqp_url")


@click.command()
@DATA
def relay(data: Path) -> None:
    """Run the relay.

    It claims deliveries that are due and hands them to the deliver processes.

    Example: waxseal relay
    """
    from workers.relay.worker import run

    run_process(run, data, "database_url", "amqp_url")


@click.command()
@DATA
def deliver(data: Path) -> None:
    """Run a deliver process.

    It sends to the endpoints. Run as many as you need.

    Example: waxseal deliver
    """
    from workers.delivery.worker import run

    run_process(run, data, "database_url", "amqp_url", "keys")


@click.command("mail-pull")
@DATA
def mail_pull(data: Path) -> None:
    """Run a mail-pull process.

    It reads the mailboxes that are due. Run as many as you need.

    Example: waxseal mail-pull
    """
    from workers.mail.pull.worker import run

    run_process(run, data, "database_url", "amqp_url", "keys")


@click.command("mail-idle")
@DATA
def mail_idle(data: Path) -> None:
    """Run the mail-idle process.

    It watches IMAP mailboxes and has them read as soon as mail arrives. Without it they are read when they are due.

    Example: waxseal mail-idle
    """
    from workers.mail.idle.worker import run

    run_process(run, data, "database_url", "keys")


@click.command()
@DATA
def sequencer(data: Path) -> None:
    """Run a sequencer.

    It gives recorded entries their positions in their tenant's log. Run a second one to take over if the first fails.

    Example: waxseal sequencer
    """
    from workers.sequencer.worker import run

    run_process(run, data, "database_url")


@click.command()
@DATA
def sealer(data: Path) -> None:
    """Run the sealer.

    It signs the tenants' logs, publishes them at WAXSEAL_LOG_FILES, and has them anchored (`waxseal log status`). Its login
    needs the role waxseal_sealer. A second one takes over when the first ends.

    Example: WAXSEAL_LOG_FILES=s3://logs WAXSEAL_LOG_ORIGIN=ledger.example waxseal sealer
    """
    from workers.sealer.worker import run

    run_process(run, data, "database_url", "keys", "log_files", "log_origin")


@click.command()
@DATA
def eraser(data: Path) -> None:
    """Run the eraser.

    It erases content that is older than its retention, and what admins asked for by the API, and deletes the large bodies of
    erased content. One is enough.

    Example: waxseal eraser
    """
    from workers.eraser.worker import run

    run_process(run, data, "database_url", "keys")


@click.command()
@DATA
def verifier(data: Path) -> None:
    """Run the verifier.

    It verifies what is new every few minutes, and a part of everything every day; `waxseal status` and the metrics show what
    it found. Its login needs the role waxseal_verifier, and should be nobody else's.

    Example: waxseal verifier
    """
    from workers.verifier.worker import run

    run_process(run, data, "database_url", "keys")


def run_process(run: "Callable[[Settings], int]", data: Path, *needed: str) -> None:
    """Run a process with the settings that it needs, on a schema of our version; ends with its exit status."""
    from ops.admin.read_session import explained
    from ops.runtime.schema_check import fitting
    from ops.system.stack_file import settings_for

    settings = settings_for(data, *needed)
    with explained(), fitting(settings.direct_url):
        code = run(settings)
    click.get_current_context().exit(code)


_ROUTE = (ingress, ingest, relay, deliver, mail_pull, mail_idle)
COMMANDS = (up, down, migrate, settings, key, *_ROUTE, sequencer, sealer, eraser, verifier)
