"""Deliveries: whether they arrive, how fast, and whose fault it is if they do not."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from ops.grafana.frame import framed
from ops.grafana.panels import Limits, Text, heat, lines, number
from ops.grafana.promql import INTERVAL, increase, largest, mean, quantile, rate, share, within

TRANSPORT: Final = 'transport=~"$transport"'

_ATTEMPTS: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Attempts by outcome and fault",
            "Attempts per second. A failure is the fault of the endpoint (destination) or ours (platform).",
            "see which fault grows: `waxseal endpoint list` names failing endpoints; ours are in the log of `deliver`",
            "WaxsealDeliveryBudgetBurn",
        ),
        {"{{outcome}}, fault {{fault}}": rate("delivery_attempts_total", TRANSPORT, by="outcome, fault")},
        "ops",
        stacked=True,
    ),
    lines(
        Text(
            "Share of attempts that fail by our fault",
            "Of all attempts, those that failed by the fault of Waxseal. The objective allows 0.1 %.",
            "read the log of `deliver` for errors, and see DNS, the network and Postgres",
            "WaxsealDeliveryBudgetBurn",
        ),
        {"{{transport}}": share("delivery_attempts_total", 'fault="platform"', of=(TRANSPORT,), by="transport")},
        "percentunit",
        Limits(0.0005, 0.001),
        size=(6, 8),
    ),
    lines(
        Text(
            "Share of attempts that fail by the endpoint's fault",
            "Of all attempts, those that failed by the fault of the endpoint. They do not count against our objectives.",
            "find the endpoint with `waxseal endpoint list`, and tell its operator",
            "WaxsealBreakersOpen",
        ),
        {"{{transport}}": share("delivery_attempts_total", 'fault="destination"', of=(TRANSPORT,), by="transport")},
        "percentunit",
        Limits(0.05, 0.25),
        size=(6, 8),
    ),
    lines(
        Text(
            "Deliveries by their end",
            "Deliveries per second that were delivered, dead-lettered, or cancelled because their endpoint was removed.",
            "run `waxseal dead list`: it groups dead letters by reason",
            "WaxsealDeadLettersArriving",
        ),
        {"{{result}}": rate("deliveries_total", TRANSPORT, by="result")},
        "ops",
    ),
    lines(
        Text(
            "Delivered by the first attempt",
            "Share of the deliveries that succeeded which needed one attempt only.",
            "see above whether endpoints or Waxseal make attempts fail",
            "WaxsealBreakersOpen",
        ),
        {"first attempt": within(1, "delivery_attempts_to_success")},
        "percentunit",
        Limits(0.95, 0.75, falling=True),
        size=(6, 8),
    ),
    lines(
        Text(
            "Attempts to success",
            "How many attempts a delivery that succeeded needed, on average.",
            "see which endpoints retry, with `waxseal undelivered`",
            "WaxsealBreakersOpen",
        ),
        {"mean": mean("delivery_attempts_to_success")},
        "none",
        Limits(1.5, 3),
        size=(6, 8),
    ),
)

_DELAY: Final = "delivery_first_attempt_delay_seconds"
_TIME: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "One attempt",
            "Duration of one attempt, from looking the address up to the end of the answer.",
            "compare transports: if one is slow, its endpoints are; if all are, see CPU on the dashboard Workers",
            "WaxsealWorkersSaturated",
        ),
        {
            f"p{percent} {{{{transport}}}}": quantile(
                percent / 100, "delivery_attempt_duration_seconds", TRANSPORT, by="transport"
            )
            for percent in (50, 95, 99)
        },
        "s",
    ),
    lines(
        Text(
            "Delay of the first attempt",
            "From the transaction that recorded the event to the first attempt. The objective: 99 % within 30 s.",
            "see on the dashboard Workers whether the pool is saturated, and add `deliver` processes",
            "WaxsealFirstAttemptBudgetBurn",
        ),
        {f"p{percent}": quantile(percent / 100, _DELAY, TRANSPORT) for percent in (50, 95, 99)},
        "s",
        Limits(10, 30),
        size=(6, 8),
    ),
    lines(
        Text(
            "First attempts within 30 s",
            "Share of first attempts that started within 30 s.",
            "see on the dashboard Queues what waits, and since when",
            "WaxsealFirstAttemptBudgetBurn",
        ),
        {"within 30 s": within(30, _DELAY, TRANSPORT)},
        "percentunit",
        Limits(0.995, 0.99, falling=True),
        size=(6, 8),
    ),
    heat(
        Text(
            "From record to delivery",
            "How long deliveries took, from the transaction that recorded their event to the attempt that succeeded.",
            "look for a second band above the first: those were retried; `waxseal undelivered` lists the rest",
            "WaxsealFirstAttemptBudgetBurn",
        ),
        increase("delivery_end_to_end_seconds_bucket", INTERVAL, TRANSPORT, by="le"),
        "s",
    ),
    lines(
        Text(
            "Waiting deliveries",
            "Deliveries that wait for a try: future ones for their time, overdue ones for an open breaker or for us.",
            "see whether breakers are open; if none is, see that `relay` and `deliver` run: the dashboard Workers shows them",
            "WaxsealFirstAttemptBudgetBurn",
        ),
        {"{{when}}": largest("retries_due", by="when")},
        "short",
    ),
)

_ENDPOINTS: Final[tuple[Panel, ...]] = (
    number(
        Text(
            "Breakers open",
            "Endpoints that are not called for now, because they do nothing but fail.",
            "run `waxseal endpoint list`: it names them; each is tried again by itself",
            "WaxsealBreakersOpen",
        ),
        largest("destinations", 'state="open"'),
        "short",
        Limits(1, 5),
        size=(4, 8),
    ),
    lines(
        Text(
            "Endpoints by state",
            "Endpoints: healthy, degraded (failed lately), open (breaker), paused.",
            "run `waxseal endpoint list` and look at those that are open or degraded",
            "WaxsealBreakersOpen",
        ),
        {"{{state}}": largest("destinations", by="state")},
        "short",
        size=(8, 8),
        stacked=True,
    ),
    lines(
        Text(
            "Breakers and disabled endpoints",
            "State changes of breakers within an hour, and endpoints that were disabled for good.",
            "an endpoint that was disabled stays so: mend it, then enable it in the configuration",
            "WaxsealEndpointDisabled",
        ),
        {
            "breaker {{to}}": increase("breaker_transitions_total", "1h", by="to"),
            "disabled": increase("endpoints_disabled_total", "1h"),
        },
        "short",
        size=(6, 8),
    ),
    lines(
        Text(
            "Connections reused",
            "Share of attempts over HTTP that used a connection which was open already.",
            "an endpoint that closes each connection costs a handshake per attempt: ask its operator for keep-alive",
            "WaxsealWorkersSaturated",
        ),
        {"reused": share("delivery_connections_total", 'reused="true"')},
        "percentunit",
        size=(6, 8),
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    return framed(
        "waxseal-delivery",
        "Waxseal / Delivery",
        "Do deliveries arrive, how fast, and whose fault is it if they do not?",
        {"Attempts": _ATTEMPTS, "Time": _TIME, "Endpoints": _ENDPOINTS},
        choices={"transport": "deliveries_total"},
    )
