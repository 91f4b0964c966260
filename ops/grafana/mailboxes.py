"""Mailboxes: whether they are read, and which need a new authorization."""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from ops.grafana.frame import framed
from ops.grafana.panels import Limits, Text, lines, number
from ops.grafana.promql import age, increase, largest, quantile, rate, total

LIST = "run `waxseal mailbox list`: it names them and says since when"

_STATE: Final[tuple[Panel, ...]] = (
    number(
        Text(
            "To be authorized anew",
            "Mailboxes that refused their credentials, and are not read until they are authorized anew.",
            f"{LIST}; then `waxseal mailbox reauthorize`",
            "WaxsealMailboxNeedsSomebody",
        ),
        largest("mailboxes", 'state="needs_reauthorization"'),
        "short",
        Limits(1, 1),
        size=(4, 8),
    ),
    number(
        Text(
            "Failing",
            "Mailboxes whose last pulls failed.",
            LIST,
            "WaxsealMailboxesFailing",
        ),
        largest("mailboxes", 'state="failing"'),
        "short",
        Limits(1, 5),
        size=(4, 8),
    ),
    number(
        Text(
            "Last read",
            "Seconds since any mailbox was read.",
            "see that `mail-pull` runs: `waxseal status`",
            "WaxsealMailNotRead",
        ),
        age("ingest_last_success_timestamp_seconds", 'connector="mail"'),
        "s",
        Limits(600, 3600),
        size=(4, 8),
    ),
    number(
        Text(
            "Longest overdue",
            "How long the mailbox that has waited longest for its pull has been due.",
            "add threads or processes of `mail-pull`, or see below which pulls are slow",
            "WaxsealMailNotRead",
        ),
        largest("stage_oldest_age_seconds", 'stage="mail"'),
        "s",
        Limits(300, 3600),
        size=(4, 8),
    ),
    lines(
        Text(
            "Mailboxes by state",
            "Mailboxes: active, failing, paused, or to be authorized anew.",
            LIST,
            "WaxsealMailboxesFailing",
        ),
        {"{{state}}": largest("mailboxes", by="state")},
        "short",
        size=(8, 8),
    ),
)

_KIND: Final = 'kind=~"$kind"'
_PULLS: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Mails",
            "Mails per second that were fetched and published: new ones, and those that were there before.",
            "if none arrive, see the pulls beside: they say why",
            "WaxsealMailNotRead",
        ),
        {"{{kind}} {{lane}}": rate("mail_fetched_total", _KIND, by="kind, lane")},
        "mps",
        size=(8, 8),
        stacked=True,
    ),
    lines(
        Text(
            "Pulls by outcome",
            "Batches of mailboxes per second. `away`, `throttled` and `refused` come from the server, `internal` from us.",
            "for `internal` read the log of `mail-pull`; for the others ask the operator of the mail server",
            "WaxsealMailboxesFailing",
        ),
        {"{{outcome}}": rate("mail_pulls_total", _KIND, by="outcome")},
        "ops",
        size=(8, 8),
    ),
    lines(
        Text(
            "One pull, p95",
            "Duration of one batch of one mailbox.",
            "see whether the server throttles; large mailboxes are slow only the first time",
            "WaxsealMailNotRead",
        ),
        {"{{kind}}": quantile(0.95, "mail_pull_duration_seconds", _KIND, by="kind")},
        "s",
        Limits(30, 60),
        size=(8, 8),
    ),
)

_FAULTS: Final[tuple[Panel, ...]] = (
    lines(
        Text(
            "Credentials refused",
            "Mailboxes that were set aside within an hour because they refused their credentials.",
            f"{LIST}; then `waxseal mailbox reauthorize`",
            "WaxsealMailboxNeedsSomebody",
        ),
        {"{{kind}}": increase("mail_reauthorizations_needed_total", "1h", by="kind")},
        "short",
        Limits(1, 1),
        size=(6, 8),
    ),
    lines(
        Text(
            "Access tokens",
            "Access tokens asked for within an hour, by outcome. After `refused`, the mailbox has to be authorized anew.",
            "if `failed` grows, see whether the provider can be reached",
            "WaxsealMailboxNeedsSomebody",
        ),
        {"{{kind}} {{outcome}}": increase("mail_token_refreshes_total", "1h", by="kind, outcome")},
        "short",
        size=(6, 8),
    ),
    lines(
        Text(
            "Mails not given, and cursors lost",
            "Mails that a server listed and did not give, and mailboxes read again from their start, within an hour.",
            "compare the mailbox with the ledger: nothing is recorded twice, but a mail not given is not recorded",
            "WaxsealMailboxesFailing",
        ),
        {
            "not given {{kind}}": increase("mail_missing_total", "1h", by="kind"),
            "read again {{kind}}": increase("mail_resyncs_total", "1h", by="kind"),
        },
        "short",
        Limits(1, 10),
        size=(6, 8),
    ),
    lines(
        Text(
            "Folders watched by IDLE",
            "Connections that hear of new mails at once; other folders are read by their schedule.",
            "if it falls to 0, see that `mail-idle` runs; mails arrive later until then, none is lost",
            "WaxsealMailNotRead",
        ),
        {"connections": total("mail_idle_connections")},
        "short",
        size=(6, 8),
    ),
)


def dashboard() -> Dashboard:
    """Build it."""
    return framed(
        "waxseal-mailboxes",
        "Waxseal / Mailboxes",
        "Is every mailbox read, how fast, and do any have to be authorized anew?",
        {"State": _STATE, "Pulls": _PULLS, "Consent and cursors": _FAULTS},
        choices={"kind": "mail_pulls_total"},
    )
