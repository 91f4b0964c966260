"""The command line. Each module lists its commands in `COMMANDS`; a new module needs an import and a line below.

Commands import what they need when they run, so that `waxseal --help` is fast.
"""

import click

from ops.cli.audit import COMMANDS as AUDIT
from ops.cli.backup.backup_command import COMMANDS as BACKUP
from ops.cli.backup.restore_command import COMMANDS as RESTORE
from ops.cli.bench import COMMANDS as BENCH
from ops.cli.bundle import COMMANDS as BUNDLE
from ops.cli.config import COMMANDS as CONFIG
from ops.cli.console import COMMANDS as CONSOLE
from ops.cli.dead import COMMANDS as DEAD
from ops.cli.demo import COMMANDS as DEMO
from ops.cli.doctor import COMMANDS as DOCTOR
from ops.cli.endpoint import COMMANDS as ENDPOINT
from ops.cli.erasure.erase_command import COMMANDS as ERASE
from ops.cli.erasure.retention_command import COMMANDS as RETENTION
from ops.cli.log.log_commands import COMMANDS as LOG
from ops.cli.mail.mailbox import COMMANDS as MAILBOX
from ops.cli.mail.mails import COMMANDS as MAIL
from ops.cli.metrics import COMMANDS as METRICS
from ops.cli.moving.tenant_commands import COMMANDS as TENANT
from ops.cli.processes import COMMANDS as PROCESSES
from ops.cli.prove import COMMANDS as PROVE
from ops.cli.prune import COMMANDS as PRUNE
from ops.cli.send import COMMANDS as SEND
from ops.cli.status import COMMANDS as STATUS
from ops.cli.terminal.exit_codes import PlainGroup
from ops.cli.timeline import COMMANDS as TIMELINE
from ops.cli.undelivered import COMMANDS as UNDELIVERED
from ops.cli.verify import COMMANDS as VERIFY
from ops.runtime import gc_tuning

COMMANDS: tuple[click.Command, ...] = (
    *PROCESSES,
    *CONSOLE,
    *CONFIG,
    *SEND,
    *STATUS,
    *DOCTOR,
    *METRICS,
    *TIMELINE,
    *UNDELIVERED,
    *DEAD,
    *ENDPOINT,
    *MAILBOX,
    *MAIL,
    *AUDIT,
    *PRUNE,
    *ERASE,
    *RETENTION,
    *VERIFY,
    *LOG,
    *BACKUP,
    *RESTORE,
    *TENANT,
    *BUNDLE,
    *PROVE,
    *DEMO,
    *BENCH,
)


@click.group(cls=PlainGroup, commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="waxseal", message="%(version)s")
def main() -> None:
    """Record webhooks, events and mail once, in a tamper-evident ledger, and deliver them until they arrive.

    \b
    Try it:
      waxseal up --config waxseal.yaml    servers and workers, in .waxseal
      waxseal send acme shop              a signed sample, to try a source out
      waxseal status                      what is queued, delivered, dead, in trouble
      waxseal doctor                      is the set-up sound, and what to mend
      waxseal verify                      is the ledger as it was written?
      waxseal down                        stop everything; `up` resumes

    Commands that read or write the ledger find it by WAXSEAL_DATABASE_URL, else in .waxseal (`--data`).
    `waxseal settings` lists every variable. An error is one line that says what to do, and exit code 2.
    """  # noqa: D301 - \b is click's own mark for lines that are not to be wrapped
    gc_tuning.collect_rarely()
