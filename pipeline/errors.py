"""Errors, classified by what the caller must do.

PipelineError
├── Rejected      reject: the message can never be admitted; keep it as a dead letter
├── ChainBroken   stop: a chain's head and entries disagree; an operator must look
├── BlobLost      keep and report: a body in the blob store is missing or altered; an operator must look
├── BlobsAway     retry: the blob store cannot be reached, or does not answer in time
└── Unreadable    stop: stored or exported data is not in a form that this version reads
    └── Unproven  stop: a signature or a proof does not show what it is said to show
"""

from typing import Literal


class PipelineError(Exception):
    """The common base of the pipeline's errors."""


class Rejected(PipelineError):
    """The message cannot be admitted. `reason` is from the closed set below, `detail` says what to mend."""

    REASONS = (
        "unknown_tenant",
        "unknown_source",
        "wrong_kind",
        "wrong_user",
        "malformed",
        "missing_id",
        "missing_subject",
        "too_large",
        "blob_missing",
        "blob_altered",
    )

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in self.REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ChainBroken(PipelineError):
    """A chain's head and its entries disagree."""


class BlobLost(PipelineError):
    """A body in the blob store is missing or altered; `kind` is the verifier's kind of fault."""

    def __init__(self, kind: Literal["blob_missing", "blob_altered"], detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class BlobsAway(PipelineError):
    """The blob store is unavailable: the request was valid, and may succeed later."""


class Unreadable(PipelineError):
    """Stored or exported data is not in a form that this version reads."""


class Unproven(Unreadable):
    """A signature or a proof does not show what it is said to show."""
