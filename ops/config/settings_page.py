"""The page ops/docs/settings.md, generated from the settings themselves."""

from typing import Final

from ops.settings import described

_TOP: Final = """\
# Settings

Every process and every command reads these environment variables once, at its start. An invalid or missing value stops
it with exit code 2 and the variable's name. `waxseal settings` prints the same list.

This page is generated: `waxseal settings --markdown`.

| variable | default | meaning |
|---|---|---|
"""

_TRACING: Final = """
## Traces

These are OpenTelemetry's own; each also exists for traces alone, as `OTEL_EXPORTER_OTLP_TRACES_…`. See [tracing](tracing.md).

| variable | default | meaning |
|---|---|---|
"""

#: OpenTelemetry's variables for traces, with their defaults and meanings. The SDK documents a few more.
TRACING: Final = (
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "the collector that traces are sent to, with OTLP over HTTP: http(s)://host:port. Unset: no traces, at no cost",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "the same for traces alone, as a whole URL, with the path"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "", "headers of each request to it, as name=value, comma-separated; may hold a token"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10", "seconds for one export, its repetitions included"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "none", "gzip, deflate or none"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "", "a file with the certificates that the collector's is checked against"),
    (
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "always_on, always_off or traceidratio; with parentbased_ before it, a sender decides for the traces that it begins",
    ),
    ("OTEL_TRACES_SAMPLER_ARG", "1.0", "the share of traces, from 0 to 1, for traceidratio"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "spans that wait to be exported, per process; beyond that, the oldest are dropped"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "spans in one export"),
    ("OTEL_BSP_SCHEDULE_DELAY", "5000", "milliseconds between two exports, if fewer spans than that wait"),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "",
        "attributes of all spans, as name=value, comma-separated: deployment.environment.name=prod",
    ),
    ("OTEL_SERVICE_NAME", "waxseal-ingest, …", "the name of the service; unset: one for each kind of process"),
    ("OTEL_SDK_DISABLED", "false", "true: no traces, whatever else is set"),
)


def settings_page() -> str:
    """Return the page: every variable with its default and its meaning."""
    return _TOP + "".join(_row(*each) for each in described()) + _TRACING + "".join(_row(*each) for each in TRACING)


def _row(variable: str, default: str, meaning: str) -> str:
    return f"| `{variable}` | {f'`{default}`' if default else ''} | {meaning.replace('|', '&#124;')} |\n"
