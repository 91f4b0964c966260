-- What is to be sequenced: one row for each statement that appended entries, in place of one for each of its chains.

-- Writers wait at the table to which they append first, and then run the new function; in the order in which they lock.
LOCK TABLE entry IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE log_pending IN ACCESS EXCLUSIVE MODE;

-- A span is `counts` entries of a chain, from `firsts` on. No chain is twice in a row. What is pending stays so, under its ids.
ALTER TABLE log_pending
  DROP CONSTRAINT log_pending_check,
  ALTER chain_id TYPE uuid[] USING ARRAY[chain_id],
  ALTER first TYPE bigint[] USING ARRAY[first],
  ALTER last TYPE bigint[] USING ARRAY[last - first + 1];
ALTER TABLE log_pending RENAME chain_id TO chain_ids;
ALTER TABLE log_pending RENAME first TO firsts;
ALTER TABLE log_pending RENAME last TO counts;
ALTER TABLE log_pending ADD entries bigint, DISABLE TRIGGER forward; -- entries of all of the row's spans
UPDATE log_pending SET entries = counts[1];
ALTER TABLE log_pending ENABLE ALWAYS TRIGGER forward;
ALTER TABLE log_pending
  ALTER entries SET NOT NULL,
  ADD CONSTRAINT log_pending_spans CHECK (cardinality(chain_ids) > 0 AND cardinality(firsts) = cardinality(chain_ids)
    AND cardinality(counts) = cardinality(chain_ids) AND 0 <= ALL (firsts) AND 1 <= ALL (counts)),
  -- Chain ids are random; the numbers beside them become small enough to stay in the row.
  ALTER chain_ids SET STORAGE EXTERNAL,
  SET (toast_tuple_target = 4000, autovacuum_vacuum_threshold = 2000, toast.autovacuum_vacuum_scale_factor = 0,
       toast.autovacuum_vacuum_threshold = 10000);
DO $$ BEGIN
  ALTER TABLE log_pending ALTER firsts SET COMPRESSION lz4, ALTER counts SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN NULL;
END $$;

-- With its owner's rights: a writer can neither forget a row, nor write or delete one itself. A row for each tenant, and for each
-- thousand of its chains: the sequencer writes the rest of a row anew when it takes a part of it.
CREATE OR REPLACE FUNCTION note_pending() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO public.log_pending (tenant, chain_ids, firsts, counts, entries, at)
  SELECT tenant, array_agg(chain_id), array_agg(first), array_agg(last - first + 1), sum(last - first + 1), min(at)
  FROM (SELECT tenant, chain_id, min(seq) AS first, max(seq) AS last, min(at) AS at, (row_number() OVER () - 1) / 1000 AS part
        FROM appended GROUP BY tenant, chain_id) AS span
  GROUP BY tenant, part;
  RETURN NULL;
END $$;

-- Each span that is left is one of those before, or the end of one, and none is there twice.
CREATE OR REPLACE FUNCTION pending_goes_forward() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (NEW.tenant, NEW.id, NEW.at) IS DISTINCT FROM (OLD.tenant, OLD.id, OLD.at)
     OR NEW.entries IS DISTINCT FROM (SELECT sum(count) FROM unnest(NEW.counts) AS count) OR EXISTS (
    SELECT FROM unnest(NEW.chain_ids, NEW.firsts, NEW.counts) AS rest (chain_id, first, count)
      LEFT JOIN unnest(OLD.chain_ids, OLD.firsts, OLD.counts) AS had (chain_id, first, count)
        ON had.chain_id = rest.chain_id AND rest.first >= had.first AND rest.first + rest.count = had.first + had.count
    GROUP BY rest.chain_id HAVING count(*) <> 1 OR count(had.chain_id) <> 1) THEN
    RAISE EXCEPTION 'what is to be sequenced only gets less, from the beginning of each chain'
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;

REVOKE UPDATE (firsts) ON log_pending FROM waxseal_sealer;
GRANT UPDATE (chain_ids, firsts, counts, entries) ON log_pending TO waxseal_sealer;
