-- The row is the envelope: its bytes are rebuilt from the columns, so that no column can differ from what was hashed.
-- Entries that exist stay in entry_v1 until ops.migrations.entry_copy has copied and compared them all.

ALTER TABLE entry RENAME TO entry_v1;
ALTER INDEX entry_pkey RENAME TO entry_v1_pkey;
ALTER INDEX entry_fingerprint_key RENAME TO entry_v1_fingerprint_key;
ALTER INDEX entry_chain_id_seq_hash_key RENAME TO entry_v1_chain_id_seq_hash_key;
REVOKE ALL ON entry_v1 FROM waxseal_writer;
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM entry_v1) THEN DROP TABLE entry_v1; END IF;
END $$;

-- LEDGER §1, to the byte. It needs no escapes: the table's constraints allow no character that JSON would escape.
-- Immutable parts only, each of them in pg_catalog, so that it is inlined in the CHECK. (As text: of ASCII, the bytes are the same.)
CREATE FUNCTION entry_envelope(chain_id uuid, seq bigint, prev_hash bytea, tenant text, at bigint, kind text, pc bytea)
  RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN CAST('{"at":' || CAST(at AS text) || ',"chain":"' || encode(uuid_send(chain_id), 'hex') || '","hash":"sha-256","kind":"' || kind
    || CASE WHEN pc IS NULL THEN '","pc":null' ELSE '","pc":"' || encode(pc, 'hex') || '"' END
    || CASE WHEN prev_hash IS NULL THEN ',"prev":null' ELSE ',"prev":"' || encode(prev_hash, 'hex') || '"' END
    || ',"seq":' || CAST(seq AS text) || ',"tenant":"' || tenant || '","v":"waxseal/event/v1"}' AS bytea);

-- Columns of fixed length first: that saves their padding.
CREATE TABLE entry (
  chain_id    uuid NOT NULL,
  seq         bigint NOT NULL,
  at          bigint NOT NULL,                         -- recorded at, in microseconds UTC
  fingerprint uuid UNIQUE,                             -- keyed hash of tenant, source, origin and id
  prev_hash   bytea,                                   -- of the entry before; null in the first
  hash        bytea NOT NULL,
  pc          bytea,                                   -- commits to the content; null where the kind has none
  tenant      text NOT NULL,
  kind        text NOT NULL,
  PRIMARY KEY (chain_id, seq),
  CONSTRAINT entry_hash CHECK (hash = sha256('\x00'::bytea || entry_envelope(chain_id, seq, prev_hash, tenant, at, kind, pc))),
  CONSTRAINT entry_first CHECK ((seq = 0) = (prev_hash IS NULL)),
  CONSTRAINT entry_seq_check CHECK (seq BETWEEN 0 AND 9007199254740991),           -- what every JSON parser reads exactly
  CONSTRAINT entry_at_check CHECK (at BETWEEN -9007199254740991 AND 9007199254740991),
  CONSTRAINT entry_pc_check CHECK (octet_length(pc) = 32),
  -- Not as regular expressions, which would cost as much as the hash.
  CONSTRAINT entry_tenant_check
    CHECK (octet_length(tenant) BETWEEN 1 AND 63 AND translate(tenant, 'abcdefghijklmnopqrstuvwxyz0123456789-', '') = ''),
  CONSTRAINT entry_kind_check CHECK (kind = 'event' OR kind ~ '^[a-z]{1,32}$')
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON entry FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON entry FOR EACH STATEMENT EXECUTE FUNCTION refuse();

-- Refuses a wrong link and a gap, as a foreign key to the entry before would, at a fifth of its price; the primary key refuses a
-- fork. It reads with the transaction's snapshot, so what another transaction has not committed is not there to follow.
-- By index whatever the statistics say: a plan made for a small table would scan a large one. Qualified names, because a
-- session's temporary tables come first otherwise.
CREATE FUNCTION entry_link() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
  wrong record;
BEGIN
  SELECT added.chain_id, added.seq INTO wrong
    FROM added LEFT JOIN public.entry AS before ON before.chain_id = added.chain_id AND before.seq = added.seq - 1
    WHERE added.seq > 0 AND before.hash IS DISTINCT FROM added.prev_hash LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'entry % of chain % does not follow the entry before it: entry_link refuses it', wrong.seq, wrong.chain_id
      USING ERRCODE = 'foreign_key_violation', SCHEMA = 'public', TABLE = 'entry', CONSTRAINT = 'entry_link';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER entry_link AFTER INSERT ON entry REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION entry_link();

-- Content belongs to an entry that commits to content. (Whether it is the content that the entry commits to, verification says.)
CREATE FUNCTION content_entry() RETURNS trigger LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
  wrong record;
BEGIN
  SELECT added.chain_id, added.seq INTO wrong
    FROM added LEFT JOIN public.entry ON entry.chain_id = added.chain_id AND entry.seq = added.seq
    WHERE entry.pc IS NULL LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'content for entry % of chain %, which does not exist or has none: content_entry refuses it', wrong.seq,
      wrong.chain_id USING ERRCODE = 'foreign_key_violation', SCHEMA = 'public', TABLE = 'content', CONSTRAINT = 'content_entry';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER content_entry AFTER INSERT ON content REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION content_entry();

-- The condition is tested without a call of the function.
CREATE FUNCTION forward_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the head of chain % moves forward only: from entry % to entry % is refused', OLD.chain_id, OLD.seq, NEW.seq
    USING ERRCODE = 'integrity_constraint_violation', SCHEMA = 'public', TABLE = 'chain', CONSTRAINT = 'forward_only';
END $$;
CREATE TRIGGER forward_only BEFORE UPDATE OF seq, hash ON chain FOR EACH ROW WHEN (NEW.seq <= OLD.seq)
  EXECUTE FUNCTION forward_only();

-- In replicas, and while session_replication_role is replica, too.
ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only_whole;
ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_link;
ALTER TABLE content ENABLE ALWAYS TRIGGER content_entry;
ALTER TABLE chain ENABLE ALWAYS TRIGGER forward_only;

-- Chains whose head and entries disagree, or that cannot be read: ingest does not add to them, and `status` shows them.
CREATE TABLE chain_aside (
  key       uuid PRIMARY KEY,                          -- of the chain
  tenant    text NOT NULL,
  chain_id  uuid,                                      -- null if the chain cannot be read
  fault     text NOT NULL,
  since     timestamptz NOT NULL,
  mended_at timestamptz
);
CREATE INDEX chain_aside_open ON chain_aside (since) WHERE mended_at IS NULL;

-- Roles -----------------------------------------------------------------------------------------------------------

-- reader: verifies, exports, answers questions; no secrets of sources, endpoints and mailboxes. The fingerprint keys that it may
-- read are encrypted, and verification needs them. sealer: gives positions and signs. eraser: calls the function that erases.
DO $$ DECLARE name text; BEGIN
  FOREACH name IN ARRAY ARRAY['waxseal_reader', 'waxseal_sealer', 'waxseal_eraser'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', name);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
GRANT USAGE ON SCHEMA public TO waxseal_reader, waxseal_sealer, waxseal_eraser;
GRANT SELECT ON alembic_version TO waxseal_reader, waxseal_sealer, waxseal_eraser;

GRANT SELECT ON attempt, audit, catalog, chain, chain_aside, content, dead_letter, delivery, endpoint_health, entry, mail_document,
  mailbox_cursor, mailbox_folder_error, operator_event, subscription, tenant, verification TO waxseal_reader;
GRANT SELECT (id, tenant_id, name, kind, created_at) ON source TO waxseal_reader;
GRANT SELECT (id, tenant_id, name, transport, url, settings, state, reason, created_at) ON endpoint TO waxseal_reader;
GRANT SELECT (id, settings, state, reason, state_at, lease_epoch, lease_owner, lease_until, next_pull_at, enqueued_at, rung_at, slow,
              began_at, pulled_at, reconciled_at, failures, failing_since, error) ON mailbox TO waxseal_reader;
GRANT INSERT ON verification TO waxseal_reader;        -- its own results, which `status` and the metrics show

-- UPDATE of a whole table, like DELETE and TRUNCATE, would allow LOCK TABLE in every mode, which stops all others. So the writer
-- has it on columns only, and never on those that say what a row is about.
GRANT SELECT ON entry TO waxseal_writer;
DO $$ BEGIN -- else when all entries have been copied
  IF to_regclass('public.entry_v1') IS NULL THEN GRANT INSERT ON entry TO waxseal_writer; END IF;
END $$;
REVOKE UPDATE ON chain, delivery, dead_letter, catalog, endpoint_health, mail_document FROM waxseal_writer;
GRANT UPDATE (seq, hash) ON chain TO waxseal_writer;
GRANT UPDATE (state, attempts, next_attempt_at, lease, lease_until, settled_at, error, age_from, schedule_from) ON delivery
  TO waxseal_writer;
GRANT UPDATE (state, detail, error, attempts, last_at, decided_at, decided_by) ON dead_letter TO waxseal_writer;
GRANT UPDATE (version) ON catalog TO waxseal_writer;
GRANT UPDATE (breaker, forced, opened_at, probe_at, trips, window_from, successes, failures, not_before, throttles, tokens,
              tokens_at, failing_since, streak, last_error, enabled_at, changed_at) ON endpoint_health TO waxseal_writer;
GRANT SELECT, INSERT, UPDATE (chain_id, fault, since, mended_at) ON chain_aside TO waxseal_writer;
GRANT UPDATE (due, taken_at, document, parser, made_at) ON mail_document TO waxseal_writer;
