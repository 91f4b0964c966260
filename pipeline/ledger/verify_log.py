"""Verifies that each tenant's log is the tenant's entries, by a numbered argument.

For every log

 (1) its positions are dense from 0 up to its size;
 (2) the entries of a chain are in it in their order, each once, from the chain's first;
 (3) every leaf's entry is in the ledger, and so is every entry that waits for its position;
 (4) the root of its first n leaves is that of each checkpoint of size n, and its frontier is that of all of them; a key of the
     log signed the checkpoint, for this tenant and incarnation; and what was anchored is there;

and over all of them

 (5) every entry has a leaf in the open log of its tenant, or waits for one;
 (6) every checkpoint, key and anchor has its log.

So what was cut off or left out contradicts the log as soon as the entry was appended (3), and what was written anew with right
hashes when it has a position (4). Whether a checkpoint is the one that was published, only its readers know.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from pipeline.errors import Unreadable
from pipeline.ledger.checkpoint import open_checkpoint, read_checkpoint
from pipeline.ledger.merkle import Frontier, extend
from pipeline.ledger.notes import ED25519, Key
from pipeline.store.ledger import log_scan
from pipeline.store.ledger.log_scan import StoredLog
from pipeline.store.ledger.scan import Scope
from schemas.ledger.fault import Fault, FaultKind
from schemas.ledger.log_names import log_origin

STEP: Final = 4096  # leaves that are hashed at once
SIGNATURES: Final = 1000  # latest checkpoints of a log whose signatures are checked


def verify_logs(conn: Connection, scope: Scope, report: Callable[[Fault], None]) -> int:
    """Checks the logs of one tenant or of all, and reports every fault; returns how many leaves there are.

    Of one subject it checks the tenant's whole log, which tells of what was written anew with right hashes, and (5) for that
    subject only.
    """
    leaves, tenant = 0, scope.tenant
    for log in log_scan.logs(conn, tenant):
        for fault in (*_order(conn, log), *_lost(conn, log), *_notes(conn, log)):
            report(fault)
        leaves += _tree(conn, log, report)
    for fault in _around(conn, scope):
        report(fault)
    if tenant is None:
        for table, log_id in log_scan.astray(conn):
            report(Fault(None, None, None, None, "checkpoint", f"{table} has rows of log {log_id}, and there is no such log"))
    return leaves


def _order(conn: Connection, log: StoredLog) -> Iterator[Fault]:
    """(2) the entries of a chain are in their order."""
    for chain_id, seq, position, before in log_scan.disorder(conn, log.id):
        after = "is the chain's first there" if before is None else f"comes after {before}"
        detail = f"at position {position} of the log, entry {seq} {after}"
        yield Fault(log.tenant, None, chain_id.hex(), seq, "log_order", detail)


def _lost(conn: Connection, log: StoredLog) -> Iterator[Fault]:
    """(3) every leaf's entry is in the ledger."""
    for chain_id, first, last, position, subject in log_scan.lost(conn, log.id):
        detail = (
            f"the log has entries {first} to {last} of the chain, from position {position} on; the ledger has not all of them"
        )
        yield Fault(log.tenant, subject, chain_id.hex(), first, "log_entry", detail)


def _notes(conn: Connection, log: StoredLog) -> Iterator[Fault]:
    """(4) each checkpoint's note says what its row does, and the latest ones are signed by a key of the log."""
    keys = log_scan.public_keys(conn, log.id)
    for number, (size, root, note) in enumerate(log_scan.notes(conn, log.id)):
        origin = note.partition("\n")[0]
        try:
            if number < SIGNATURES:
                said, names = open_checkpoint(note, [Key(origin, ED25519, public) for public in keys])
            else:
                said, names = read_checkpoint(note.partition("\n\n")[0] + "\n"), (origin,)
        except Unreadable as error:
            yield _fault(log, "checkpoint", f"the checkpoint of size {size} cannot be read: {error}")
            continue
        if (said.size, said.root) != (size, root) or not origin.endswith(log_origin("", log.tenant, log.incarnation)):
            yield _fault(log, "checkpoint", f"the note of the checkpoint of size {size} says another log, size or root")
        elif origin not in names:
            yield _fault(log, "checkpoint", f"the checkpoint of size {size} is not signed by a key of the log")
    for size in log_scan.anchored(conn, log.id):
        yield _fault(log, "checkpoint", f"the checkpoint of size {size} was published or anchored, and is missing")


def _around(conn: Connection, scope: Scope) -> Iterator[Fault]:
    """(3) and (5), of what waits for its position."""
    for chain_id, first, last, owner, subject in log_scan.lost_waiting(conn, scope.tenant):
        detail = (
            f"entries {first} to {last} were appended and wait for their positions in the log; the last is not in the ledger"
        )
        yield Fault(owner, subject, chain_id.hex(), last, "log_entry", detail)
    for chain_id, first, last, owner, subject in log_scan.forgotten(conn, scope):
        detail = f"of entries {first} to {last}, some have no position in the log and do not wait for one"
        yield Fault(owner, subject, chain_id.hex(), first, "log_entry", detail)


def _tree(conn: Connection, log: StoredLog, report: Callable[[Fault], None]) -> int:
    """(1) and (4): one pass over the leaves."""
    sealed = iter(log_scan.checkpoints(conn, log.id))
    frontier, due, right = Frontier(0, ()), next(sealed, None), True
    leaves = log_scan.leaves(conn, log.id)
    position = 0
    while True:
        while due is not None and due[0] == frontier.size:
            if right and frontier.root() != due[1]:
                right = False
                report(
                    _fault(log, "log_root", f"the log's first {due[0]} entries are not those of its checkpoint of that size")
                )
            due = next(sealed, None)
        wanted = STEP if due is None else min(STEP, due[0] - frontier.size)
        page = list(islice(leaves, wanted))
        if not page:
            break
        if [each[0] for each in page] != list(range(position, position + len(page))):
            report(_fault(log, "log_position", f"between positions {position} and {page[-1][0]} of the log, some are missing"))
            return position + len(page)
        position += len(page)
        right = right and all(each[1] for each in page)  # a missing one was told
        frontier = extend(frontier, [each[1] or bytes(32) for each in page])
    if due is not None:
        report(_fault(log, "log_position", f"a checkpoint was signed for {due[0]} entries; the log has {position}"))
    if position != log.size:
        report(_fault(log, "log_position", f"the log's row says {log.size} entries; there are {position}"))
    elif right and b"".join(frontier.hashes) != log.frontier:
        report(_fault(log, "log_root", "the log's entries are not those that it was extended by"))
    return position


def _fault(log: StoredLog, kind: FaultKind, detail: str) -> Fault:
    return Fault(log.tenant, None, None, None, kind, detail)
