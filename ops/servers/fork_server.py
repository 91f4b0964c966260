"""Imported last by the process that forks our commands, which it makes ready for that."""

import gc
import os
import signal
from typing import Final

from ops.servers.process_tree import die_with_parent

PID: Final = os.getpid()

os.setsid()  # signals that a terminal sends to the group of our parent are not for it
die_with_parent(signal.SIGKILL)
gc.freeze()  # the forks share what was imported, which their collections must not touch
gc.enable()
