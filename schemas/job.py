"""A job: a long act of an operator, run in the background by a console process, or by the eraser."""

from typing import Literal

#: replay, discard: of dead letters. endpoint_replay, endpoint_discard: of what a disabled endpoint missed. redeliver: of what
#: failed at an endpoint since a time. retry: of what is planned for later. verify, export: of a tenant's ledger, or of one
#: subject. erase: of a subject's content, by the eraser.
JobKind = Literal["replay", "discard", "retry", "endpoint_replay", "endpoint_discard", "redeliver", "verify", "export", "erase"]

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
