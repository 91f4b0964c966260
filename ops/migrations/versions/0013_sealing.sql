-- What the sealer needs besides the log's tables.

-- That a log was published at a place, once: a place that lost its files is not taken for a new one.
ALTER TABLE anchor DROP CONSTRAINT anchor_kind_check, ADD CONSTRAINT anchor_kind_check
  CHECK (kind IN ('published', 'folder', 's3', 'rfc3161', 'witness'));
CREATE INDEX anchor_by_place ON anchor (log_id, kind, place, size);

-- The logs that the sealer refuses to sign just now. The alarm is an operator event; this only says what is so.
CREATE TABLE log_refusal (
  log_id int PRIMARY KEY REFERENCES log,
  since  timestamptz NOT NULL,
  kind   text NOT NULL CHECK (kind IN ('smaller', 'inconsistent', 'leaves', 'checkpoint', 'missing', 'incarnation')),
  detail text NOT NULL
);

ALTER TABLE operator_event DROP CONSTRAINT operator_event_kind_check, ADD CONSTRAINT operator_event_kind_check
  CHECK (kind IN ('endpoint_disabled', 'endpoint_enabled', 'breaker_opened', 'breaker_closed',
                  'mailbox_needs_reauthorization', 'mailbox_failing', 'mailbox_active', 'mailbox_paused',
                  'mailbox_folder_unreadable', 'mailbox_folder_readable', 'duplicate_differs', 'chain_broken', 'crash_loop',
                  'log_refused')
         AND (tenant IS NULL) = (kind = 'crash_loop'));
CREATE INDEX operator_event_log_refused ON operator_event (tenant, at) WHERE kind = 'log_refused';

-- The sealer makes a log's first key, and none after it: whoever takes the process over cannot add a key of his own to a log
-- that has one. Rotation and retirement are the owner's.
CREATE FUNCTION log_key_is_first() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE')
     AND EXISTS (SELECT FROM public.log_key WHERE log_id = NEW.log_id) THEN
    RAISE EXCEPTION 'log % has a key: only the owner of the database adds another', NEW.log_id
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER first BEFORE INSERT ON log_key FOR EACH ROW EXECUTE FUNCTION log_key_is_first();
ALTER TABLE log_key ENABLE ALWAYS TRIGGER first;

-- A key signs until it is retired, and is never changed or deleted: old checkpoints are verified with it.
CREATE FUNCTION log_key_only_retires() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (NEW.id, NEW.log_id, NEW.public, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.log_id, OLD.public, OLD.created_at)
     OR OLD.state = 'retired' AND NEW.state <> 'retired' THEN
    RAISE EXCEPTION 'a log''s key is only ever retired' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER only_retires BEFORE UPDATE ON log_key FOR EACH ROW EXECUTE FUNCTION log_key_only_retires();
CREATE TRIGGER kept BEFORE DELETE ON log_key FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER kept_whole BEFORE TRUNCATE ON log_key FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE log_key ENABLE ALWAYS TRIGGER only_retires;
ALTER TABLE log_key ENABLE ALWAYS TRIGGER kept;
ALTER TABLE log_key ENABLE ALWAYS TRIGGER kept_whole;

GRANT INSERT (log_id, public, private) ON log_key TO waxseal_sealer;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_refusal TO waxseal_sealer;
GRANT INSERT (at, kind, tenant, detail), SELECT (at, kind, tenant) ON operator_event TO waxseal_sealer;
GRANT SELECT ON log_refusal TO waxseal_reader, waxseal_writer;

-- The relays append the heads entries: they read where the chains ended in the log. Status and doctor show the rest.
GRANT SELECT ON leaf, checkpoint, anchor TO waxseal_writer;
GRANT SELECT (id, log_id, public, state, created_at) ON log_key TO waxseal_writer;
