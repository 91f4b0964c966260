-- Mailboxes: sources that are pulled. What is configured, who pulls just now, how far each folder is read, what is held.

-- A mailbox is a source with a row here; what its events need is the source's, what pulling needs is here. Apart from the
-- source, so that the catalog does not move with every pull.
CREATE TABLE mailbox (
  id            int PRIMARY KEY REFERENCES source ON DELETE CASCADE,
  settings      jsonb NOT NULL,                        -- login, server, folders, rules: what is no secret
  credentials   bytea NOT NULL,                        -- encrypted: as configured
  tokens        bytea,                                 -- encrypted: what the provider gave since; gone when credentials change
  state         text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'needs_reauthorization')),
  reason        text,
  state_at      timestamptz NOT NULL DEFAULT now(),
  -- Who pulls: at most one, and whatever it writes names the epoch of its lease. A later epoch makes it powerless.
  lease_epoch   bigint NOT NULL DEFAULT 0,
  lease_owner   text,
  lease_until   timestamptz,
  -- When it is to be pulled next; a notification during a pull is not lost.
  next_pull_at  timestamptz NOT NULL DEFAULT now(),
  enqueued_at   timestamptz,                           -- a message that asks for a pull is under way since then
  rung_at       timestamptz,
  slow          boolean NOT NULL DEFAULT false,        -- pulled beside the others, so that they do not wait for it
  began_at      timestamptz,                           -- first read; what the server took before then is backfill
  pulled_at     timestamptz,                           -- the last pull that succeeded
  reconciled_at timestamptz,                           -- when everything that there is was last compared with what is held
  failures      int NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- in a row
  failing_since timestamptz,
  error         text,                                  -- of the last pull that failed
  CHECK ((state = 'active') = (reason IS NULL)),
  CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
  CHECK ((failures = 0) = (failing_since IS NULL) AND (failures = 0) = (error IS NULL)),
  CHECK (pulled_at IS NULL OR began_at IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX mailbox_by_due ON mailbox (next_pull_at) WHERE state = 'active';

-- How far a folder is read, in each of two lanes that share no number: what arrives, and what was there before.
CREATE TABLE mailbox_cursor (
  mailbox_id  int NOT NULL REFERENCES mailbox ON DELETE CASCADE,
  folder      text NOT NULL,
  lane        text NOT NULL CHECK (lane IN ('new', 'backfill')),
  cursor      jsonb NOT NULL,                          -- opaque to everybody but the mailbox's kind
  done        bigint NOT NULL DEFAULT 0 CHECK (done >= 0),
  total       bigint CHECK (total >= 0),               -- where the server says
  again       boolean NOT NULL DEFAULT false,          -- it was read before: what came since then is no less new for that
  begun_at    timestamptz NOT NULL,
  moved_at    timestamptz NOT NULL,
  finished_at timestamptz,
  PRIMARY KEY (mailbox_id, folder, lane),
  CHECK (finished_at IS NULL OR lane = 'backfill')     -- what arrives has no end
) WITH (fillfactor = 50);

-- What is held: durable in the broker before the row is written. The source key makes fetching again harmless; the ledger
-- makes publishing again harmless.
CREATE TABLE mail_item (
  mailbox_id    int NOT NULL REFERENCES mailbox ON DELETE CASCADE,
  source_key    text NOT NULL,
  folder        text NOT NULL,
  message_id    text,
  size          bigint NOT NULL CHECK (size >= 0),
  internal_date timestamptz NOT NULL,
  event_id      text,
  flags         text[] NOT NULL DEFAULT '{}',
  seen_at       timestamptz NOT NULL,
  PRIMARY KEY (mailbox_id, source_key),
  CHECK (event_id IS NOT NULL OR cardinality(flags) > 0)  -- what was not fetched says why
);
-- A mail by its Message-ID: under another key after a changed UIDVALIDITY, or with other bytes, which is a conflict.
CREATE INDEX mail_item_by_message_id ON mail_item (mailbox_id, message_id) WHERE message_id IS NOT NULL;

ALTER TABLE operator_event DROP CONSTRAINT operator_event_kind_check, ADD CONSTRAINT operator_event_kind_check
  CHECK (kind IN ('endpoint_disabled', 'endpoint_enabled', 'breaker_opened', 'breaker_closed',
                  'mailbox_needs_reauthorization', 'mailbox_failing', 'mailbox_active', 'mailbox_paused')),
  ADD COLUMN source_id int,
  ADD CONSTRAINT operator_event_of CHECK (endpoint_id IS NULL OR source_id IS NULL);

-- A worker pulls and keeps tokens; what is configured it may only read.
GRANT SELECT, UPDATE (tokens, state, reason, state_at, lease_epoch, lease_owner, lease_until, next_pull_at, enqueued_at, rung_at,
  slow, began_at, pulled_at, reconciled_at, failures, failing_since, error) ON mailbox TO waxseal_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON mailbox_cursor, mail_item TO waxseal_writer;
