"""What each role may do with the tables, as the migrations grant it.

None but the owner has UPDATE, DELETE or TRUNCATE on a whole table of the ledger, of deliveries or of dead letters: each of them
would allow LOCK TABLE in every mode, too.
"""

from collections.abc import Mapping
from typing import Final


def _each(**tables: str) -> Mapping[str, str]:
    """The rights of each table, from the tables of each right, which is written with underscores."""
    return {table: right.replace("_", " ") for right, named in tables.items() for table in named.split()}


#: With whole tables. A role that is a member of another has the other's rights besides.
GRANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "waxseal_writer": _each(
        SELECT=(
            "alembic_version anchor catalog checkpoint claim endpoint erased_blob leaf log log_pending "
            "log_refusal mailbox retention_progress retention_run source subscription tenant verification "
            "verified_point"
        ),
        INSERT_SELECT=(
            "attempt audit chain chain_aside content dead_letter delivery endpoint_health entry mail_document operator_event"
        ),
        DELETE_INSERT_SELECT_UPDATE="mail_item mailbox_cursor mailbox_folder_error",
    ),
    "waxseal_reader": _each(
        SELECT=(
            "alembic_version anchor attempt audit catalog chain chain_aside checkpoint claim content dead_letter "
            "delivery endpoint_health entry erased_blob leaf log log_pending log_refusal mail_document "
            "mailbox_cursor mailbox_folder_error operator_event retention_progress retention_run subscription "
            "tenant verification verified_point"
        ),
    ),
    "waxseal_sealer": _each(
        SELECT="alembic_version anchor chain entry log log_key",
        INSERT_SELECT="checkpoint leaf",
        DELETE_SELECT="log_pending",
        DELETE_INSERT_SELECT_UPDATE="log_refusal",
    ),
    "waxseal_eraser": _each(
        SELECT="alembic_version attempt catalog chain dead_letter delivery endpoint_health mail_document",
        INSERT_SELECT="audit content entry",
        DELETE_SELECT="erased_blob",
        DELETE_INSERT_SELECT_UPDATE="retention_progress",
        INSERT_SELECT_UPDATE="retention_run",
    ),
    "waxseal_verifier": _each(
        INSERT_UPDATE="claim verified_point",
        SELECT="tenant",
        INSERT="verification",
    ),
}


def _columns(**rights: str) -> str:
    """Each right on each of its columns, as `inspection.column_grants` tells them."""
    return " ".join(f"{right}({column})" for right, columns in rights.items() for column in columns.split())


#: With single columns of those tables.
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "waxseal_writer": {
        "catalog": _columns(UPDATE="version"),
        "chain": _columns(UPDATE="seq hash"),
        "chain_aside": _columns(UPDATE="chain_id fault since mended_at"),
        "dead_letter": _columns(UPDATE="state detail attempts last_at error decided_at decided_by"),
        "delivery": _columns(
            UPDATE="state attempts next_attempt_at lease lease_until settled_at error age_from schedule_from",
        ),
        "endpoint": _columns(UPDATE="state reason"),
        "endpoint_health": _columns(
            UPDATE="breaker forced opened_at probe_at trips window_from successes failures not_before throttles tokens "
            "tokens_at failing_since streak last_error enabled_at changed_at",
        ),
        "log_key": _columns(SELECT="id log_id public state created_at"),
        "mail_document": _columns(UPDATE="due taken_at document parser made_at"),
        "mailbox": _columns(
            UPDATE="tokens state reason state_at lease_epoch lease_owner lease_until next_pull_at enqueued_at rung_at "
            "slow began_at pulled_at reconciled_at failures failing_since error",
        ),
    },
    "waxseal_reader": {
        "endpoint": _columns(SELECT="id tenant_id name url settings state reason created_at transport"),
        "log_key": _columns(SELECT="id log_id public state created_at"),
        "mailbox": _columns(
            SELECT="id settings state reason state_at lease_epoch lease_owner lease_until next_pull_at enqueued_at "
            "rung_at slow began_at pulled_at reconciled_at failures failing_since error",
        ),
        "source": _columns(SELECT="id tenant_id name kind created_at"),
    },
    "waxseal_sealer": {
        "anchor": _columns(INSERT="log_id size kind place at receipt"),
        "log": _columns(INSERT="tenant", UPDATE="size frontier"),
        "log_key": _columns(INSERT="log_id public private"),
        "log_pending": _columns(UPDATE="first"),
        "operator_event": _columns(INSERT="at kind tenant detail", SELECT="at kind tenant"),
        "tenant": _columns(SELECT="id name"),
    },
    "waxseal_eraser": {
        "chain": _columns(UPDATE="seq hash"),
        "delivery": _columns(UPDATE="next_attempt_at"),
        "source": _columns(SELECT="id tenant_id name kind settings"),
        "tenant": _columns(SELECT="id name fingerprint_key before_origins retention"),
    },
}
KNOWN: Final = frozenset(table for tables in GRANTS.values() for table in tables)
