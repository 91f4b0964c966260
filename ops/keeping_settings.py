"""The settings of how long what is no part of the ledger is kept."""

from datetime import timedelta
from typing import Final

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from schemas.units import seconds

_A_DAY: Final = 86_400.0


class KeepingSettings(BaseSettings):
    """For how long what happened is kept, as 90d; empty: for ever. The eraser removes what is older."""

    keep_deliveries: str = Field(
        "",
        description="how long deliveries are kept after they were delivered or discarded, as 90d; then they go, with their "
        "attempts and the operator events of endpoints. Unset: for ever. The ledger keeps the event, whatever this says",
    )
    keep_attempts: str = Field(
        "", description="how long attempts are kept, in whole days, as 30d. Unset: as long as deliveries"
    )
    keep_dead_letters: str = Field(
        "", description="how long dead letters are kept after they were replayed or discarded, as 180d. Unset: for ever"
    )
    keep_operator_events: str = Field("", description="how long operator events are kept, as 365d. Unset: for ever")
    keep_audit: str = Field("", description="how long the audit of operators' acts is kept, as 730d. Unset: for ever")
    keep_verifications: str = Field(
        "", description="how long verifications that found nothing wrong are kept, as 365d; the last ones stay. Unset: for ever"
    )

    keep_mail_items: str = Field(
        "",
        description="how long it is kept which mails were fetched, as 90d, after their mailbox last listed them (two weeks at "
        "least) or they were imported; never of a mail that the mailbox still has. Unset: for ever. The ledger keeps the mail",
    )

    @field_validator(
        *("keep_deliveries", "keep_attempts", "keep_dead_letters", "keep_operator_events", "keep_audit", "keep_verifications"),
        "keep_mail_items",
    )
    @classmethod
    def _is_an_age(cls, text: str) -> str:
        kept_for(text)
        return text


def kept_for(text: str) -> timedelta | None:
    """The time that it names, of a day at least; None: for ever. Raises `ValueError`."""
    if not text:
        return None
    found = seconds(text)
    if found < _A_DAY:
        raise ValueError("must be a day at least, as 90d")
    return timedelta(seconds=found)
