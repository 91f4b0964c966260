-- Folders of a mailbox that cannot be read, while others of it can: the mailbox does not fail for them.

CREATE TABLE mailbox_folder_error (
  mailbox_id int NOT NULL REFERENCES mailbox ON DELETE CASCADE,
  folder     text NOT NULL,
  error      text NOT NULL,
  since      timestamptz NOT NULL,
  PRIMARY KEY (mailbox_id, folder)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON mailbox_folder_error TO waxseal_writer;

-- Two kinds of events more, whatever others there are by now.
DO $$
BEGIN
  EXECUTE (
    SELECT format('ALTER TABLE operator_event DROP CONSTRAINT operator_event_kind_check, ADD CONSTRAINT operator_event_kind_check '
      'CHECK (%s OR kind IN (''mailbox_folder_unreadable'', ''mailbox_folder_readable''))', pg_get_expr(conbin, conrelid))
    FROM pg_constraint WHERE conrelid = 'operator_event'::regclass AND conname = 'operator_event_kind_check');
END
$$;
