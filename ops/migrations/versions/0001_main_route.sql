-- The main route: what is configured, the ledger, deliveries, dead letters.
-- Owner: whoever runs this. Processes log in as members of waxseal_writer and can neither change nor delete an entry.

DO $$ BEGIN CREATE ROLE waxseal_writer NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

-- What is configured ----------------------------------------------------------------------------------------------

CREATE TABLE tenant (
  id              int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name            text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  fingerprint_key bytea NOT NULL,                      -- encrypted; without it a fingerprint tells nothing of the id
  created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE source (
  id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id  int NOT NULL REFERENCES tenant,
  name       text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  kind       text NOT NULL,
  secrets    bytea[] NOT NULL DEFAULT '{}',            -- encrypted
  settings   jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, name)
);

CREATE TABLE endpoint (
  id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id  int NOT NULL REFERENCES tenant,
  name       text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  url        text NOT NULL,
  secrets    bytea[] NOT NULL DEFAULT '{}',            -- encrypted
  settings   jsonb NOT NULL DEFAULT '{}',
  state      text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'removed')),
  reason     text CHECK ((state = 'disabled') = (reason IS NOT NULL)),
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, name)
);

CREATE TABLE subscription (
  endpoint_id int PRIMARY KEY REFERENCES endpoint,
  filter      jsonb                                    -- one CloudEvents filter expression; null takes every event
);

-- One number that moves with every change above, in the same transaction: a process compares it and reads again.
CREATE TABLE catalog (
  single  boolean PRIMARY KEY DEFAULT true CHECK (single),
  version bigint NOT NULL
);
INSERT INTO catalog (version) VALUES (0);

CREATE FUNCTION catalog_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE catalog SET version = version + 1;
  PERFORM pg_notify('waxseal_catalog', '');
  RETURN NULL;
END $$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON tenant FOR EACH STATEMENT EXECUTE FUNCTION catalog_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON source FOR EACH STATEMENT EXECUTE FUNCTION catalog_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON endpoint FOR EACH STATEMENT EXECUTE FUNCTION catalog_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON subscription FOR EACH STATEMENT EXECUTE FUNCTION catalog_changed();

-- The ledger ------------------------------------------------------------------------------------------------------

-- The only mutable row of a chain. One key column has one possible index, so no plan can go wrong.
CREATE TABLE chain (
  key      uuid PRIMARY KEY,                           -- keyed hash of tenant and subject
  tenant   text NOT NULL,
  subject  text NOT NULL,
  chain_id uuid NOT NULL UNIQUE,
  seq      bigint NOT NULL DEFAULT -1,                 -- of the last entry
  hash     bytea,                                      -- of the last entry
  CHECK ((seq = -1) = (hash IS NULL))
) WITH (fillfactor = 70);                              -- free space for the heads to move within their page

CREATE TABLE entry (
  chain_id    uuid NOT NULL,
  seq         bigint NOT NULL CHECK (seq >= 0),
  prev_seq    bigint GENERATED ALWAYS AS (CASE WHEN seq = 0 THEN NULL ELSE seq - 1 END) STORED,
  prev_hash   bytea,
  hash        bytea NOT NULL,
  envelope    bytea NOT NULL,
  tenant      text NOT NULL,
  fingerprint uuid UNIQUE,                             -- keyed hash of tenant, source and id; null where the kind has no id
  PRIMARY KEY (chain_id, seq),
  UNIQUE (chain_id, seq, hash),                        -- what the link below points at
  CONSTRAINT entry_hash CHECK (hash = sha256('\x00'::bytea || envelope)),
  CONSTRAINT entry_first CHECK ((seq = 0) = (prev_hash IS NULL)),
  CONSTRAINT entry_link FOREIGN KEY (chain_id, prev_seq, prev_hash) REFERENCES entry (chain_id, seq, hash)
);

-- Erasable, so apart from the entry. Its text columns are copies for searching; `verify` compares them with the bytes.
CREATE TABLE content (
  chain_id   uuid NOT NULL,
  seq        bigint NOT NULL,
  attributes bytea NOT NULL,
  body       bytea,
  blob       text,
  salt       bytea NOT NULL CHECK (octet_length(salt) = 32),
  source     text NOT NULL,
  type       text NOT NULL,
  subject    text NOT NULL,
  "time"     timestamptz NOT NULL,
  PRIMARY KEY (chain_id, seq),
  CHECK ((body IS NULL) <> (blob IS NULL))
);

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON entry FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON entry FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE entry ENABLE ALWAYS TRIGGER append_only_whole;

-- Deliveries ------------------------------------------------------------------------------------------------------

-- pending -> leased -> delivered | pending again | dead; paused and discarded by operators.
-- No foreign keys to entry and endpoint: the row is written in the entry's own transaction, endpoints are never deleted,
-- and locking one endpoint row per event would make every ingest process wait for the others.
CREATE TABLE delivery (
  id              bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  endpoint_id     int NOT NULL,
  tenant          text NOT NULL,
  chain_id        uuid NOT NULL,
  seq             bigint NOT NULL,
  size            int NOT NULL,                        -- bytes of the body
  state           text NOT NULL CHECK (state IN ('pending', 'leased', 'delivered', 'dead', 'paused', 'discarded')),
  attempts        int NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  created_at      timestamptz NOT NULL,
  next_attempt_at timestamptz,
  lease           uuid,
  lease_until     timestamptz,
  settled_at      timestamptz,
  error           text,                                -- of the last try
  CONSTRAINT delivery_due CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
  CONSTRAINT delivery_lease CHECK ((state = 'leased') = (lease IS NOT NULL) AND (lease IS NULL) = (lease_until IS NULL)),
  CONSTRAINT delivery_settled CHECK ((state IN ('delivered', 'dead', 'discarded')) = (settled_at IS NOT NULL)),
  UNIQUE (chain_id, seq, endpoint_id)
);
CREATE INDEX delivery_by_due ON delivery (next_attempt_at) WHERE state = 'pending';
CREATE INDEX delivery_by_lease ON delivery (lease_until) WHERE state = 'leased';
CREATE INDEX delivery_unfinished ON delivery (endpoint_id, state) WHERE state IN ('dead', 'paused');

CREATE TABLE attempt (
  delivery_id bigint NOT NULL,
  n           int NOT NULL CHECK (n >= 1),
  started_at  timestamptz NOT NULL,
  seconds     real NOT NULL,
  outcome     text NOT NULL CHECK (outcome IN ('delivered', 'retry', 'dead')),
  status      int,
  error       text,
  detail      text,
  response    bytea,
  CHECK ((status IS NULL) <= (error IS NOT NULL))      -- no answer without an error that stands in its place
);
CREATE INDEX attempt_by_delivery ON attempt (delivery_id);

CREATE TABLE dead_letter (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stage        text NOT NULL CHECK (stage IN ('admit', 'append', 'deliver', 'actor')),
  state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
  reason       text NOT NULL,
  detail       text NOT NULL,
  tenant       text,
  source       text,
  endpoint_id  int,
  delivery_id  bigint,
  event_id     text,
  routing_key  text,
  content_type text,
  headers      json NOT NULL DEFAULT '{}',
  body         bytea,
  attempts     int NOT NULL DEFAULT 1,
  first_at     timestamptz NOT NULL,
  last_at      timestamptz NOT NULL,
  CHECK ((stage = 'deliver') = (delivery_id IS NOT NULL))
);
CREATE INDEX dead_letter_open ON dead_letter (last_at) WHERE state = 'open';

-- Privileges ------------------------------------------------------------------------------------------------------

GRANT USAGE ON SCHEMA public TO waxseal_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO waxseal_writer;
GRANT INSERT ON entry, content, chain, delivery, attempt, dead_letter TO waxseal_writer;
GRANT UPDATE ON chain, delivery, dead_letter TO waxseal_writer;
GRANT UPDATE (state, reason) ON endpoint TO waxseal_writer;
GRANT UPDATE ON catalog TO waxseal_writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO waxseal_writer;
