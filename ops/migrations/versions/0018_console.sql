-- The console reads as waxseal_reader does, and does what operators do by commands: it decides about dead letters and deliveries,
-- switches endpoints and mailboxes, and applies configurations. It can neither write the ledger nor sign.

DO $$ BEGIN CREATE ROLE waxseal_console NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
GRANT USAGE ON SCHEMA public TO waxseal_console;
GRANT waxseal_reader TO waxseal_console;

GRANT INSERT ON audit, operator_event TO waxseal_console;
GRANT UPDATE (state, detail, decided_at, decided_by) ON dead_letter TO waxseal_console;
GRANT UPDATE (state, attempts, next_attempt_at, lease, lease_until, settled_at, error, age_from, schedule_from) ON delivery
  TO waxseal_console;
GRANT INSERT, UPDATE ON endpoint_health TO waxseal_console;

-- What is configured, with its secrets, which are encrypted.
GRANT SELECT ON source, endpoint, mailbox TO waxseal_console;
GRANT INSERT, UPDATE, DELETE ON tenant, source, endpoint, subscription, mailbox TO waxseal_console;
GRANT DELETE ON endpoint_health, mailbox_cursor, mailbox_folder_error, mail_item TO waxseal_console;
GRANT SELECT ON mail_item TO waxseal_console;
GRANT UPDATE (version) ON catalog TO waxseal_console;
