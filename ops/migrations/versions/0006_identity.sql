-- An event's origin is part of its identity, and what ingest sets aside is told.

-- Events of these tenants may be recorded under fingerprints that leave out the origin, and are looked up under both. Who is
-- added later has none, so a new installation never looks twice.
ALTER TABLE tenant ADD COLUMN before_origins boolean NOT NULL DEFAULT false;
UPDATE tenant SET before_origins = true;

-- Of a chain that is set aside.
ALTER TABLE operator_event ADD COLUMN chain_id uuid;
ALTER TABLE operator_event DROP CONSTRAINT operator_event_kind_check, ADD CONSTRAINT operator_event_kind_check
  CHECK (kind IN ('endpoint_disabled', 'endpoint_enabled', 'breaker_opened', 'breaker_closed',
                  'mailbox_needs_reauthorization', 'mailbox_failing', 'mailbox_active', 'mailbox_paused',
                  'duplicate_differs', 'chain_broken'));

-- Whether somebody was told of it within the hour.
CREATE INDEX operator_event_of_source ON operator_event (source_id, at) WHERE kind = 'duplicate_differs';
CREATE INDEX operator_event_of_chain ON operator_event (chain_id, at) WHERE kind = 'chain_broken';
