-- Folders of a mailbox that cannot be read, while others of it can: the mailbox does not fail for them.

CREATE TABLE mailbox_folder_error (
  mailbox_id int NOT NULL REFERENCES mailbox ON DELETE CASCADE,
  folder     text NOT NULL,
  error      text NOT NULL,
  since      timestamptz NOT NULL,
  PRIMARY KEY (mailbox_id, folder)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON mailbox_folder_error TO waxseal_writer;

ALTER TABLE operator_event DROP CONSTRAINT operator_event_kind_check, ADD CONSTRAINT operator_event_kind_check
  CHECK (kind IN ('endpoint_disabled', 'endpoint_enabled', 'breaker_opened', 'breaker_closed',
                  'mailbox_needs_reauthorization', 'mailbox_failing', 'mailbox_active', 'mailbox_paused',
                  'mailbox_folder_unreadable', 'mailbox_folder_readable', 'duplicate_differs', 'chain_broken'));
