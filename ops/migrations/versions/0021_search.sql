-- What the console searches: copies that it makes itself, from what the sequencer has given a position. Recording an event and
-- delivering it write nothing here, and where no console runs these tables stay empty.

-- One row for each event that has content, by its position in its tenant's log. Texts are cut to 500 characters: an index takes
-- no entry of more than 2,700 bytes. In collation C, the same index finds a value and a prefix.
CREATE TABLE event_search (
  log_id   int NOT NULL,
  position bigint NOT NULL,
  at       timestamptz NOT NULL,                       -- recorded at
  chain_id uuid NOT NULL,
  seq      bigint NOT NULL,
  type     text COLLATE "C" NOT NULL,
  source   text COLLATE "C" NOT NULL,
  event_id text COLLATE "C",                           -- null: the attributes cannot be read
  PRIMARY KEY (log_id, position)
);
CREATE INDEX event_search_by_time ON event_search (log_id, at, position);
CREATE INDEX event_search_by_type ON event_search (log_id, type, at, position);
CREATE INDEX event_search_by_source ON event_search (log_id, source, at, position);
CREATE INDEX event_search_by_id ON event_search (log_id, event_id, position);

-- The subjects, by their chains.
CREATE TABLE subject_search (
  chain_id uuid NOT NULL,
  log_id   int NOT NULL,
  subject  text COLLATE "C" NOT NULL,
  PRIMARY KEY (chain_id, log_id)
);
CREATE INDEX subject_search_by_subject ON subject_search (log_id, subject, chain_id);

-- The deliveries of each endpoint, the delivered ones as well, which no index of `delivery` holds.
CREATE TABLE delivery_search (
  endpoint_id int NOT NULL,
  id          bigint NOT NULL,
  PRIMARY KEY (endpoint_id, id)
);

-- How far each log is copied: the first position that is not. And up to which delivery.
CREATE TABLE search_progress (
  log_id   int PRIMARY KEY,
  position bigint NOT NULL,
  at       timestamptz                                 -- when the last copied entry was recorded
) WITH (fillfactor = 50);
CREATE TABLE delivery_search_progress (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  upto   bigint NOT NULL
) WITH (fillfactor = 50);

-- Figures by the minute. Entries are counted when they are copied; tries are counted anew while their minute may still grow.
CREATE TABLE accepted_minute (
  log_id int NOT NULL,
  minute timestamptz NOT NULL,
  n      bigint NOT NULL,
  PRIMARY KEY (log_id, minute)
);
CREATE TABLE stat_minute (
  endpoint_id int NOT NULL,
  minute      timestamptz NOT NULL,
  outcome     text NOT NULL CHECK (outcome IN ('delivered', 'retry', 'dead')),
  n           bigint NOT NULL,
  seconds     double precision NOT NULL,               -- of all of them
  buckets     bigint[] NOT NULL,                       -- how many took at most 5 ms, 10 ms …; the last: longer than all bounds
  PRIMARY KEY (endpoint_id, minute, outcome)
);
-- Tries that began before this minute are counted, but for those that are settled long after.
CREATE TABLE stat_progress (
  single     boolean PRIMARY KEY DEFAULT true CHECK (single),
  counted_to timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX accepted_minute_by_time ON accepted_minute (minute);
CREATE INDEX stat_minute_by_time ON stat_minute (minute);

-- Tries lie in the order of their time, so a summary of each quarter of a megabyte finds those of a minute.
CREATE INDEX attempt_by_time ON attempt USING brin (started_at) WITH (pages_per_range = 32, autosummarize = on);

-- A tenant's open dead letters, the newest first; only who buries or decides pays for it.
CREATE INDEX dead_letter_open_of_tenant ON dead_letter (tenant, last_at, id) WHERE state = 'open';

-- It begins a subtransaction, which no parallel plan may.
ALTER FUNCTION id_of(bytea) PARALLEL UNSAFE;

-- Erasure ------------------------------------------------------------------------------------------------------------

-- The copies go in the transaction that erases the content. Whoever copies holds this lock alone while it does, and looks at the
-- content after it has got it: either it finds the content gone, or this finds its copies.
CREATE FUNCTION forget_searched() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(24852988478448747);
  DELETE FROM public.event_search AS copied USING gone, public.leaf
    WHERE leaf.chain_id = gone.chain_id AND leaf.seq = gone.seq
      AND copied.log_id = leaf.log_id AND copied.position = leaf.position;
  RETURN NULL;
END $$;
CREATE TRIGGER forget_searched AFTER DELETE ON content REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION forget_searched();

CREATE FUNCTION forget_subject() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(24852988478448747);
  DELETE FROM public.subject_search WHERE chain_id = OLD.chain_id;
  RETURN NEW;
END $$;
-- Moving a head does not set the subject, and does not come here. Not AFTER: for that each moved head would be fetched once more.
CREATE TRIGGER forget_subject BEFORE UPDATE OF subject ON chain FOR EACH ROW
  WHEN (NEW.subject IS DISTINCT FROM OLD.subject) EXECUTE FUNCTION forget_subject();

-- Privileges ---------------------------------------------------------------------------------------------------------

GRANT SELECT ON event_search, subject_search, delivery_search, search_progress, delivery_search_progress, accepted_minute,
  stat_minute, stat_progress TO waxseal_reader;
GRANT INSERT, DELETE ON event_search, subject_search, delivery_search TO waxseal_console;
GRANT INSERT, UPDATE, DELETE ON search_progress, accepted_minute, stat_minute TO waxseal_console;
GRANT INSERT, UPDATE ON delivery_search_progress, stat_progress TO waxseal_console;
GRANT SELECT ON SEQUENCE delivery_id_seq TO waxseal_console;  -- up to which deliveries have been numbered
