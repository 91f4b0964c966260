-- A process that ends again and again is an operator event. It belongs to no tenant.
ALTER TABLE operator_event ALTER COLUMN tenant DROP NOT NULL;
ALTER TABLE operator_event DROP CONSTRAINT operator_event_kind_check, ADD CONSTRAINT operator_event_kind_check
  CHECK (kind IN ('endpoint_disabled', 'endpoint_enabled', 'breaker_opened', 'breaker_closed',
                  'mailbox_needs_reauthorization', 'mailbox_failing', 'mailbox_active', 'mailbox_paused',
                  'mailbox_folder_unreadable', 'mailbox_folder_readable', 'duplicate_differs', 'chain_broken', 'crash_loop')
         AND (tenant IS NULL) = (kind = 'crash_loop'));
CREATE INDEX IF NOT EXISTS operator_event_crash_loops ON operator_event (at) WHERE kind = 'crash_loop';
