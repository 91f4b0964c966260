"""What each role may do, as the migrations grant it: with tables, columns, sequences and functions, and as a member of another.

None but the owner has UPDATE, DELETE or TRUNCATE on a whole table of the ledger, of deliveries or of dead letters: each of them
would allow LOCK TABLE in every mode, too. `doctor` compares all of it with the database, `verify` what could change the ledger.
"""

from collections.abc import Mapping
from typing import Final

Rights = Mapping[str, Mapping[str, str]]  # by role and by what they are rights on

PUBLIC: Final = "PUBLIC"  # everybody
ROLES: Final = ("waxseal_writer", "waxseal_reader", "waxseal_sealer", "waxseal_eraser", "waxseal_verifier", "waxseal_console")

#: The roles that a role is a member of, and whose rights it has besides.
MEMBER_OF: Final = {"waxseal_verifier": {"waxseal_reader"}, "waxseal_console": {"waxseal_reader"}}
#: What CREATE ROLE … NOLOGIN makes of a role.
ATTRIBUTES: Final = frozenset({"INHERIT"})


def _each(kind: str = "", **named: str) -> Mapping[str, str]:
    """The rights on each thing, from the things of each right, which is written with underscores."""
    return {kind + name: right.replace("_", " ") for right, names in named.items() for name in names.split()}


#: With whole tables.
TABLES: Final[Rights] = {
    "waxseal_writer": _each(
        SELECT=(
            "alembic_version anchor catalog checkpoint claim endpoint erased_blob leaf log log_pending "
            "log_refusal mailbox past_delivery retention_progress retention_run source subscription tenant "
            "tenant_move verification verified_point"
        ),
        INSERT_SELECT=(
            "attempt audit chain chain_aside content dead_letter delivery endpoint_health entry mail_document operator_event"
        ),
        DELETE_INSERT_SELECT_UPDATE="mail_item mailbox_cursor mailbox_folder_error",
    ),
    "waxseal_reader": _each(
        SELECT=(
            "accepted_minute alembic_version anchor attempt audit catalog chain chain_aside checkpoint claim content "
            "dead_letter delivery delivery_search delivery_search_progress endpoint_health entry erased_blob event_search "
            "job leaf log log_pending log_refusal mail_document mailbox_cursor mailbox_folder_error operator_event "
            "past_delivery retention_progress retention_run "
            "search_progress stat_minute stat_progress subject_search subscription tenant tenant_move "
            "verification verified_point"
        ),
    ),
    "waxseal_sealer": _each(
        SELECT="alembic_version anchor chain entry log log_key tenant_move",
        INSERT_SELECT="checkpoint leaf",
        DELETE_SELECT="log_pending",
        DELETE_INSERT_SELECT_UPDATE="log_refusal",
    ),
    "waxseal_eraser": _each(
        SELECT=(
            "alembic_version attempt catalog chain dead_letter delivery endpoint_health job mail_document operator_event "
            "past_delivery tenant_move verification"
        ),
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
    "waxseal_console": _each(
        INSERT="audit operator_event",
        DELETE_INSERT_UPDATE="accepted_minute endpoint_health search_progress stat_minute subscription tenant",
        DELETE_INSERT="delivery_search event_search job subject_search",
        INSERT_UPDATE="delivery_search_progress stat_progress",
        DELETE_INSERT_SELECT_UPDATE="access_rate endpoint login_attempt mailbox source",
        INSERT_SELECT="access_token",
        DELETE_INSERT_SELECT="console_session idempotency_key job_file",
        DELETE="mailbox_cursor mailbox_folder_error",
        DELETE_SELECT="mail_item",
    ),
}


def _columns(**rights: str) -> str:
    """Each right on each of its columns, as `inspection.column_grants` tells them."""
    return " ".join(f"{right}({column})" for right, columns in rights.items() for column in columns.split())


_KEY_BUT_PRIVATE: Final = _columns(SELECT="id log_id public state created_at")
_MAILBOX_STATE: Final = (
    "state reason state_at lease_epoch lease_owner lease_until next_pull_at enqueued_at rung_at slow began_at pulled_at "
    "reconciled_at failures failing_since error"
)

#: With single columns of those tables.
COLUMNS: Final[Rights] = {
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
        "log_key": _KEY_BUT_PRIVATE,
        "mail_document": _columns(UPDATE="due taken_at document parser made_at"),
        "mailbox": _columns(UPDATE=f"tokens {_MAILBOX_STATE}"),
    },
    "waxseal_reader": {
        "access_token": _columns(
            SELECT="id who role tenant once created_at created_by expires_at last_used_at revoked_at revoked_by",
        ),
        "console_session": _columns(
            SELECT="id who issuer subject token_id grants created_at seen_at fresh_at idle_until ends_at ended_at address "
            "agent",
        ),
        "endpoint": _columns(SELECT="id tenant_id name url settings state reason created_at transport"),
        "log_key": _KEY_BUT_PRIVATE,
        "mailbox": _columns(SELECT=f"id settings {_MAILBOX_STATE}"),
        "source": _columns(SELECT="id tenant_id name kind created_at"),
    },
    "waxseal_sealer": {
        "anchor": _columns(INSERT="log_id size kind place at receipt"),
        "log": _columns(INSERT="tenant", UPDATE="size frontier"),
        "log_key": _columns(INSERT="log_id public private"),
        "log_pending": _columns(UPDATE="chain_ids counts entries firsts"),
        "operator_event": _columns(INSERT="at kind tenant detail", SELECT="at kind tenant"),
        "tenant": _columns(SELECT="id name"),
    },
    "waxseal_eraser": {
        "chain": _columns(UPDATE="seq hash"),
        "delivery": _columns(UPDATE="next_attempt_at"),
        "job": _columns(UPDATE="state total done left place started_at ended_at lease lease_until owner runs error result"),
        "source": _columns(SELECT="id tenant_id name kind settings"),
        "tenant": _columns(SELECT="id name fingerprint_key before_origins retention"),
    },
    "waxseal_console": {
        "access_token": _columns(UPDATE="last_used_at revoked_at revoked_by"),
        "console_session": _columns(UPDATE="seen_at idle_until ended_at"),
        "catalog": _columns(UPDATE="version"),
        "dead_letter": _columns(UPDATE="state detail decided_at decided_by"),
        "delivery": _columns(
            UPDATE="state attempts next_attempt_at lease lease_until settled_at error age_from schedule_from",
        ),
        "job": _columns(
            UPDATE="state total done left place started_at ended_at cancel_by lease lease_until owner runs error result",
        ),
    },
}
_NUMBERED: Final = (
    "audit_id_seq dead_letter_id_seq delivery_id_seq endpoint_id_seq operator_event_id_seq source_id_seq tenant_id_seq"
)
_SEQUENCES: Final[Rights] = {
    "waxseal_writer": _each("sequence ", USAGE=_NUMBERED),
    "waxseal_sealer": _each("sequence ", SELECT="log_pending_id_seq"),
    "waxseal_console": _each("sequence ", SELECT="delivery_id_seq"),
    "waxseal_eraser": _each(
        "sequence ", USAGE=f"{_NUMBERED} anchor_id_seq log_id_seq log_key_id_seq log_pending_id_seq verification_id_seq"
    ),
}
#: Everybody may call what runs with the rights of its caller; but not `letters_of`, which only the eraser's functions call.
_FUNCTIONS: Final[Rights] = {
    PUBLIC: _each(
        "function ",
        EXECUTE="catalog_changed content_commitment content_entry entry_envelope entry_link forget_searched forget_subject "
        "forward_only id_of leaves_are_dense log_goes_forward log_key_is_first log_key_only_retires pending_goes_forward "
        "refuse",
    ),
    "waxseal_writer": _each("function ", EXECUTE="mail_items_since make_attempt_partitions"),
    "waxseal_eraser": _each(
        "function ",
        EXECUTE="drop_attempts erase_content lock_for_erasure mail_items_since remove_deliveries remove_mail_items remove_told",
    ),
}
_OF_NOBODY: Final = (
    "function attempt_partition_day",
    "function attempts_since",
    "function letters_of",
    "function note_pending",
    "function refuse_young",
    "sequence job_id_seq",
)

#: With whole tables, sequences and functions.
GRANTS: Final[Rights] = {
    role: {**TABLES.get(role, {}), **_SEQUENCES.get(role, {}), **_FUNCTIONS.get(role, {})} for role in (*ROLES, PUBLIC)
}
#: What the rights are on; others' tables and functions in the same database are nobody's concern here.
KNOWN: Final = frozenset((*_OF_NOBODY, *(thing for things in GRANTS.values() for thing in things)))
