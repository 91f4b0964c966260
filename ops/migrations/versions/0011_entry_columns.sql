-- The row is the envelope: its bytes are rebuilt from the columns, so that no column can differ from what was hashed.
-- Entries that exist stay in entry_v1 until ops.migrations.entry_copy has copied and compared them all.

ALTER TABLE entry RENAME TO entry_v1;
ALTER INDEX entry_pkey RENAME TO entry_v1_pkey;
ALTER INDEX entry_fingerprint_key RENAME TO entry_v1_fingerprint_key;
ALTER INDEX entry_chain_id_seq_hash_key RENAME TO entry_v1_chain_id_seq_hash_key;
REVOKE ALL ON entry_v1 FROM waxseal_writer;

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

ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only_whole;
ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_link;

GRANT SELECT, INSERT ON entry TO waxseal_writer;
