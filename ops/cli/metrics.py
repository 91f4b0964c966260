"""The command that lists the metrics."""

# ruff: noqa: PLC0415 - commands import what they need when they run

import click


@click.command()
@click.option("--markdown", is_flag=True, help="Print the page ops/docs/metrics.md.")
def metrics(markdown: bool) -> None:
    """List the metrics.

    Each with its kind, its labels and its meaning.

    Example: waxseal metrics
    """
    from ops.telemetry import table  # noqa: F401 - defines the metrics
    from ops.telemetry.metric_kinds import TABLE
    from ops.telemetry.metrics_page import metrics_page

    if markdown:
        click.echo(metrics_page(), nl=False)
        return
    for row in TABLE.values():
        labels = f"{{{','.join(row.labels)}}}" if row.labels else ""
        click.echo(f"{row.name + labels:<64}  {row.kind:<9}  {row.meaning}")


COMMANDS: tuple[click.Command, ...] = (metrics,)
