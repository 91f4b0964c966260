"""A job: a long act of an operator, run in the background by a console process."""

from typing import Literal

#: replay, discard: of dead letters. endpoint_replay, endpoint_discard: of what a disabled endpoint missed. redeliver: of what
#: failed at an endpoint since a time. verify, export: of a tenant's ledger, or of one subject.
JobKind = Literal["replay", "discard", "endpoint_replay", "endpoint_discard", "redeliver", "verify", "export"]

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
