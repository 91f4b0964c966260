"""The command line. A module here gives its commands as `COMMANDS`; adding one is a line below.

Modules import what their commands need inside them, so that `waxseal --help` is there at once.
"""

import click

from ops.cli.audit import COMMANDS as ANSWERING
from ops.cli.bench import COMMANDS as MEASURING
from ops.cli.config import COMMANDS as CONFIGURING
from ops.cli.dead import COMMANDS as DEAD
from ops.cli.demo import COMMANDS as SHOWING
from ops.cli.endpoint import COMMANDS as TENDING
from ops.cli.mail.mailbox import COMMANDS as COLLECTING
from ops.cli.mail.mails import COMMANDS as PULLING
from ops.cli.processes import COMMANDS as RUNNING
from ops.cli.prune import COMMANDS as PRUNING
from ops.cli.send import COMMANDS as TRYING
from ops.cli.status import COMMANDS as LOOKING
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.timeline import COMMANDS as READING
from ops.cli.undelivered import COMMANDS as OWING
from ops.cli.verify import COMMANDS as PROVING

COMMANDS: tuple[click.Command, ...] = (
    *RUNNING,
    *CONFIGURING,
    *TRYING,
    *LOOKING,
    *READING,
    *OWING,
    *DEAD,
    *TENDING,
    *COLLECTING,
    *PULLING,
    *ANSWERING,
    *PRUNING,
    *PROVING,
    *SHOWING,
    *MEASURING,
)


@click.group(cls=PlainGroup, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="waxseal", message="%(version)s")
def main() -> None:
    """Record webhooks, events and mail once, in a tamper-evident ledger, and deliver them until they arrive.

    \b
    Try it:
      waxseal up --config waxseal.yaml    servers and workers, in .waxseal
      waxseal send acme shop              a signed sample, to try a source out
      waxseal status                      what is queued, delivered, dead
      waxseal verify                      is the ledger as it was written?
      waxseal down                        stop everything; `up` resumes

    Commands that read or write the ledger find it by WAXSEAL_DATABASE_URL, else in .waxseal (`--data`).
    `waxseal settings` lists every variable. An error is one line that says what to do, and exit code 2.
    """  # noqa: D301 - \b is click's own mark for lines that are not to be wrapped
