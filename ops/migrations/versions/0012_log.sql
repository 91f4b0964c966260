-- The log of each tenant (RFC 6962, C2SP tlog-tiles): which entry has which position in its tree, the checkpoints that were
-- signed, where they were anchored, and the keys that sign. Positions are assigned afterwards, by the sequencer: row ids and
-- sequences are not commit order.

DO $$ BEGIN CREATE ROLE waxseal_sealer NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE waxseal_reader NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

-- A backup that was restored goes on in a new incarnation, which is a new tree.
CREATE TABLE log (
  id          int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant      text NOT NULL,
  incarnation int NOT NULL DEFAULT 1 CHECK (incarnation >= 1),
  state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
  size        bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
  frontier    bytea NOT NULL DEFAULT '',               -- roots of the full subtrees, 32 bytes each, the largest first
  UNIQUE (tenant, incarnation),
  CONSTRAINT log_frontier CHECK (octet_length(frontier) = 32 * bit_count(int8send(size)))
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX log_open ON log (tenant) WHERE state = 'open';

-- The entries that have no position yet: written in their own transaction, deleted in the one that gives them positions.
-- Two rows of one chain are in the order of their ids: the later one's transaction sees the earlier one's committed.
CREATE TABLE log_pending (
  tenant   text NOT NULL,
  id       bigint GENERATED ALWAYS AS IDENTITY,
  chain_id uuid NOT NULL,
  first    bigint NOT NULL,
  last     bigint NOT NULL,
  at       bigint NOT NULL,                            -- of the first entry
  PRIMARY KEY (tenant, id),
  CHECK (0 <= first AND first <= last)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_threshold = 1000000);

CREATE TABLE leaf (
  log_id   int NOT NULL,
  position bigint NOT NULL,
  chain_id uuid NOT NULL,
  seq      bigint NOT NULL,
  PRIMARY KEY (log_id, position),
  CONSTRAINT leaf_once UNIQUE (chain_id, seq, log_id)
);

CREATE TABLE checkpoint (
  log_id    int NOT NULL REFERENCES log,
  size      bigint NOT NULL CHECK (size >= 0),
  root      bytea NOT NULL CHECK (octet_length(root) = 32),
  note      text NOT NULL,
  signed_at timestamptz NOT NULL,
  PRIMARY KEY (log_id, size)
);

CREATE TABLE anchor (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  log_id  int NOT NULL,
  size    bigint NOT NULL,
  kind    text NOT NULL CHECK (kind IN ('folder', 's3', 'rfc3161', 'witness')),
  place   text NOT NULL,
  at      timestamptz NOT NULL,
  receipt bytea NOT NULL DEFAULT '',
  FOREIGN KEY (log_id, size) REFERENCES checkpoint
);
CREATE INDEX anchor_by_log ON anchor (log_id, size);

CREATE TABLE log_key (
  id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  log_id     int NOT NULL REFERENCES log,
  public     bytea NOT NULL CHECK (octet_length(public) = 32),
  private    bytea,                                    -- encrypted; null when it is kept elsewhere
  state      text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'retired')),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- What is to be sequenced ---------------------------------------------------------------------------------------------

-- With its owner's rights: a writer can neither forget a row, nor write or delete one itself. It may not be put on another
-- table either, whose rows it would take for entries.
CREATE FUNCTION note_pending() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO public.log_pending (tenant, chain_id, first, last, at)
  SELECT tenant, chain_id, min(seq), max(seq), min(at) FROM appended GROUP BY tenant, chain_id;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION note_pending() FROM PUBLIC;
CREATE TRIGGER pending AFTER INSERT ON entry REFERENCING NEW TABLE AS appended
  FOR EACH STATEMENT EXECUTE FUNCTION note_pending();
ALTER TABLE entry ENABLE ALWAYS TRIGGER pending;

-- The chains that exist. CREATE TRIGGER has locked out writers until this transaction ends. Each chain is found by one
-- look-up in the index of entries, so that a chain without its row in `chain` is not left out.
WITH RECURSIVE each (chain_id) AS (
  (SELECT chain_id FROM entry ORDER BY chain_id LIMIT 1)
  UNION ALL
  SELECT (SELECT entry.chain_id FROM entry WHERE entry.chain_id > each.chain_id ORDER BY entry.chain_id LIMIT 1)
  FROM each WHERE each.chain_id IS NOT NULL)
INSERT INTO log_pending (tenant, chain_id, first, last, at)
SELECT opening.tenant, each.chain_id, opening.seq, ending.seq, opening.at
FROM each
CROSS JOIN LATERAL (SELECT tenant, seq, at FROM entry WHERE entry.chain_id = each.chain_id ORDER BY seq LIMIT 1) AS opening
CROSS JOIN LATERAL (SELECT seq FROM entry WHERE entry.chain_id = each.chain_id ORDER BY seq DESC LIMIT 1) AS ending;

-- Append-only --------------------------------------------------------------------------------------------------------

DO $$ DECLARE name text; BEGIN
  FOREACH name IN ARRAY ARRAY['leaf', 'checkpoint', 'anchor'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse()', name);
    EXECUTE format('CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse()', name);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only_whole', name);
  END LOOP;
END $$;

CREATE TRIGGER kept BEFORE DELETE ON log FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TRIGGER kept_whole BEFORE TRUNCATE ON log FOR EACH STATEMENT EXECUTE FUNCTION refuse();
ALTER TABLE log ENABLE ALWAYS TRIGGER kept;
ALTER TABLE log ENABLE ALWAYS TRIGGER kept_whole;

-- The new leaves go on where the log ends. With the primary key, and the check of the log's growth below, the positions of a
-- log are dense from 0.
CREATE FUNCTION leaves_are_dense() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wrong int;
BEGIN
  SELECT added.log_id INTO wrong
  FROM (SELECT log_id, min(position) AS first, max(position) AS last, count(*) AS count FROM added GROUP BY log_id) AS added
  LEFT JOIN public.log ON log.id = added.log_id AND log.state = 'open'
  WHERE log.id IS NULL OR added.first <> log.size OR added.last - added.first + 1 <> added.count LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'leaves go on where their log ends, without gaps: refused for log %', wrong
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER dense AFTER INSERT ON leaf REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION leaves_are_dense();
ALTER TABLE leaf ENABLE ALWAYS TRIGGER dense;

-- A log keeps its name, grows only, by exactly its new leaves, and stays closed.
CREATE FUNCTION log_goes_forward() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (NEW.id, NEW.tenant, NEW.incarnation) IS DISTINCT FROM (OLD.id, OLD.tenant, OLD.incarnation)
     OR NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.frontier <> OLD.frontier)
     OR (OLD.state = 'closed' AND (NEW.state <> 'closed' OR NEW.size <> OLD.size))
     OR (NEW.size > OLD.size AND NOT EXISTS (SELECT FROM public.leaf WHERE log_id = NEW.id AND position = NEW.size - 1))
     OR (NEW.size > OLD.size AND EXISTS (SELECT FROM public.leaf WHERE log_id = NEW.id AND position = NEW.size)) THEN
    RAISE EXCEPTION 'a log only grows, by its leaves: from % to % of log % is refused', OLD.size, NEW.size, OLD.id
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER forward BEFORE UPDATE ON log FOR EACH ROW EXECUTE FUNCTION log_goes_forward();
ALTER TABLE log ENABLE ALWAYS TRIGGER forward;

-- Of a range that is longer than one transaction takes, the first part goes.
CREATE FUNCTION pending_goes_forward() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (NEW.tenant, NEW.id, NEW.chain_id, NEW.last, NEW.at) IS DISTINCT FROM (OLD.tenant, OLD.id, OLD.chain_id, OLD.last, OLD.at)
     OR NEW.first < OLD.first THEN
    RAISE EXCEPTION 'what is to be sequenced only gets less, from its beginning'
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER forward BEFORE UPDATE ON log_pending FOR EACH ROW EXECUTE FUNCTION pending_goes_forward();
ALTER TABLE log_pending ENABLE ALWAYS TRIGGER forward;

-- Privileges ---------------------------------------------------------------------------------------------------------

-- Sequencer and sealer. They read what they position, and the tenants' names.
GRANT USAGE ON SCHEMA public TO waxseal_sealer, waxseal_reader;
GRANT SELECT ON log, log_pending, leaf, checkpoint, anchor, log_key, entry, chain, alembic_version TO waxseal_sealer;
GRANT SELECT ON SEQUENCE log_pending_id_seq TO waxseal_sealer;
GRANT SELECT (id, name) ON tenant TO waxseal_sealer;
GRANT INSERT (tenant) ON log TO waxseal_sealer;
GRANT UPDATE (size, frontier) ON log TO waxseal_sealer;
GRANT UPDATE (first), DELETE ON log_pending TO waxseal_sealer;
GRANT INSERT ON leaf, checkpoint TO waxseal_sealer;
GRANT INSERT (log_id, size, kind, place, at, receipt) ON anchor TO waxseal_sealer;

-- Whoever verifies, and the workers that show how far behind the sequencer is.
GRANT SELECT ON log, log_pending, leaf, checkpoint, anchor TO waxseal_reader;
GRANT SELECT (id, log_id, public, state, created_at) ON log_key TO waxseal_reader;
GRANT SELECT ON log, log_pending TO waxseal_writer;
