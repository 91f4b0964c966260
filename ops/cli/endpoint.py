"""Commands on endpoints: their state, enabling and disabling, forcing their breakers."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help is there at once

import sys
from typing import TYPE_CHECKING

import click

from ops.cli.terminal.confirm import ActTerms, bulk_act, on_named
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.terminal.options import reads
from ops.cli.terminal.output import Column, counted, moment, show_fields, show_json, show_list

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ops.admin.bulk import Named

_ENDPOINT: tuple[Column, ...] = (
    ("tenant", "tenant"),
    ("name", "name"),
    ("state", "state"),
    ("breaker", lambda row: f"{row['breaker']}{' (forced)' if row['forced'] else ''}"),
    ("waits until", moment("waits_until")),
    ("pending", "pending"),
    ("overdue", "overdue"),
    ("leased", "leased"),
    ("paused", "paused"),
    ("oldest due", moment("oldest_due")),
    ("last error", "last_error"),
)


@click.group(cls=PlainGroup)
def endpoint() -> None:
    """List endpoints and their breakers; enable and disable them.

    `waxseal audit` and `waxseal events` show what was done.

    Example: waxseal endpoint list acme
    """


@endpoint.command("list")
@click.argument("tenant", required=False)
@reads
def list_endpoints(engine: "Engine", tenant: str | None, as_json: bool) -> None:
    """List endpoints: state, breaker, and undelivered events.

    Example: waxseal endpoint list acme
    """
    from ops.admin.endpoints import list_endpoints as listed

    show_list(listed(engine, tenant), _ENDPOINT, as_json, none="no endpoints")


@endpoint.command("show")
@click.argument("tenant")
@click.argument("name")
@reads
def show_endpoint(engine: "Engine", tenant: str, name: str, as_json: bool) -> None:
    """Show one endpoint: health, breaker, rate, backlog.

    Example: waxseal endpoint show acme billing
    """
    from ops.admin.bulk import Named
    from ops.admin.endpoints import show_endpoint as shown

    show_fields(shown(engine, Named(tenant, name)), as_json)


@endpoint.command()
@click.option("--replay", "choice", flag_value="replay", help="Deliver what it missed.")
@click.option("--discard-missed", "choice", flag_value="discard", help="Discard what it missed, for good.")
@on_named(bulk_act)
def enable(engine: "Engine", named: "Named", terms: ActTerms, choice: str | None) -> None:
    """Enable an endpoint again, and decide about what it missed.

    Its breaker and its failures are reset. What it missed is counted first, and then delivered as fast as its limits allow,
    or discarded. If interrupted, the same command does the rest.

    Example: waxseal endpoint enable acme billing --replay
    """
    from ops.admin import endpoints

    found = endpoints.missed_by(engine, named)
    choice = _chosen(found.count, choice, terms) if found.count else None
    filter_ = {"tenant": named.tenant, "endpoint": named.name}
    done = {"replayed": 0, "discarded": 0}
    if choice == "discard":  # before it is enabled: deliveries still paused after that will be delivered
        step = endpoints.discarding(named)
        done["discarded"] = terms.carry_out(engine, "endpoint discard", filter_, found.count, step)
    moved = endpoints.enable(engine, named)
    if choice == "replay":
        done["replayed"] = terms.carry_out(engine, "endpoint replay", filter_, found.count, endpoints.replaying(named))
    _say(terms, named, "enabled" if moved else "was not disabled", moved, done)


@endpoint.command()
@click.option("--reason", default="by an operator", show_default=True, help="Why; recorded with the event.")
@on_named()
def disable(engine: "Engine", named: "Named", terms: ActTerms, reason: str) -> None:
    """Disable an endpoint. Its deliveries are kept until it is enabled again.

    Example: waxseal endpoint disable acme billing --reason "they migrate until Monday"
    """
    from ops.admin import endpoints

    moved = endpoints.disable(engine, named, reason)
    _say(terms, named, "disabled" if moved else "was not active", moved)


@endpoint.command("open-breaker")
@on_named()
def open_breaker(engine: "Engine", named: "Named", terms: ActTerms) -> None:
    """Force an endpoint's breaker open: nothing is sent and no try is counted, until `release`.

    Example: waxseal endpoint open-breaker acme billing
    """
    from ops.admin import endpoints

    moved = endpoints.open_breaker(engine, named)
    _say(terms, named, "is forced open" if moved else "was forced open before", moved)


@endpoint.command("close-breaker")
@on_named()
def close_breaker(engine: "Engine", named: "Named", terms: ActTerms) -> None:
    """Force an endpoint's breaker closed: everything is sent, whatever fails, until `release`.

    Example: waxseal endpoint close-breaker acme billing
    """
    from ops.admin import endpoints

    moved = endpoints.close_breaker(engine, named)
    _say(terms, named, "is forced closed" if moved else "was forced closed before", moved)


@endpoint.command()
@on_named()
def release(engine: "Engine", named: "Named", terms: ActTerms) -> None:
    """End a forced state of a breaker. An open breaker lets one probe through at once.

    Example: waxseal endpoint release acme billing
    """
    from ops.admin import endpoints

    moved = endpoints.release_breaker(engine, named)
    _say(terms, named, "is released" if moved else "was not forced", moved)


def _chosen(count: int, choice: str | None, terms: ActTerms) -> str:
    """Whether to replay or discard missed deliveries; prompts for it if no option says so and there is a terminal."""
    what = counted(count, "delivery that it missed", "deliveries that it missed")
    if choice is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise click.UsageError(f"there are {what}: add --replay or --discard-missed", click.get_current_context())
        choice = click.prompt(f"{what}: replay or discard", type=click.Choice(["replay", "discard"]), err=True)
    terms.confirm(f"{choice} {what}")
    return str(choice)


def _say(terms: ActTerms, named: "Named", what: str, moved: bool, counts: dict[str, int] | None = None) -> None:
    if terms.as_json:
        show_json({"tenant": named.tenant, "endpoint": named.name, "changed": moved, **(counts or {})})
        return
    told = [f"{count} {name}" for name, count in (counts or {}).items() if count]
    click.echo(f"{named.tenant}/{named.name} {what}" + (f"; {', '.join(told)}" if told else ""))


COMMANDS: tuple[click.Command, ...] = (endpoint,)
