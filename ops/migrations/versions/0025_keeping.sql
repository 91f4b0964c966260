-- What is no part of the ledger need not be kept for ever. Nothing is removed unless a policy says so; the eraser carries it out,
-- by functions that run as their owner, because nobody else may delete. Only objects are added: processes of before go on.

-- What was removed of deliveries: how many of each endpoint came to which end, by the day in UTC on which they did.
CREATE TABLE past_delivery (
  endpoint_id int NOT NULL,
  day         date NOT NULL,
  state       text NOT NULL CHECK (state IN ('delivered', 'discarded')),
  n           bigint NOT NULL CHECK (n > 0),
  PRIMARY KEY (endpoint_id, day, state)
) WITH (fillfactor = 70);

CREATE FUNCTION attempt_partition_day(name text) RETURNS date LANGUAGE sql IMMUTABLE
  RETURN CASE WHEN name ~ '^attempt_[0-9]{8}$' THEN make_date(CAST(substr(name, 9, 4) AS int), CAST(substr(name, 13, 2) AS int),
                                                              CAST(substr(name, 15, 2) AS int)) END;

-- The end of what may be removed: an erasure finds what endpoints answered of an event by its deliveries, so a day's attempts go
-- before its deliveries. Tables of attempts that are detached already count as well.
CREATE FUNCTION attempts_since() RETURNS timestamptz LANGUAGE sql STABLE
  RETURN (SELECT coalesce(min(public.attempt_partition_day(relname)), 'infinity') :: timestamp AT TIME ZONE 'UTC'
          FROM pg_catalog.pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r');

-- Settled for good, and nothing refers to them: for operators who ask how many there are. What is dead waits for a decision. No
-- row of these can come back: an entry is recorded once, and only in that transaction are its deliveries planned.
CREATE VIEW removable_delivery AS
  SELECT id, endpoint_id, state, settled_at FROM delivery
  WHERE state IN ('delivered', 'discarded') AND settled_at < (SELECT public.attempts_since())
    AND NOT EXISTS (SELECT FROM dead_letter WHERE dead_letter.delivery_id = delivery.id);

-- Whoever holds the writer's or the eraser's login cannot remove what happened today.
CREATE FUNCTION refuse_young(before timestamptz) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF before IS NULL OR before > now() - interval '1 day' + interval '1 minute' THEN
    RAISE EXCEPTION 'what is less than a day old is not removed' USING ERRCODE = 'insufficient_privilege';
  END IF;
END $$;

-- Looks at the `most` deliveries that follow number `after`, and removes those that were settled before then. `last` is the number
-- to go on from; not `more`: none of these was made before then, and so nothing after them was. Rows that others lock stay for
-- the next time, so that nobody waits for this, and this waits for nobody but for the console's index.
CREATE FUNCTION remove_deliveries(before timestamptz, after bigint, most int, OUT last bigint, OUT removed bigint, OUT more boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  referred bigint[];
  until timestamptz := least(before, public.attempts_since());
BEGIN
  PERFORM public.refuse_young(before);
  IF most IS NULL OR most NOT BETWEEN 1 AND 50000 THEN RAISE EXCEPTION 'most must be 1 to 50000'; END IF;
  removed := 0;
  SELECT max(page.id), coalesce(bool_or(page.created_at < before), false) INTO last, more
    FROM (SELECT id, created_at FROM public.delivery WHERE id > after ORDER BY id LIMIT most) AS page;
  IF NOT more THEN RETURN; END IF;
  -- The console's indexer holds it alone while it copies deliveries: it either has copied them before, or finds them gone.
  PERFORM pg_advisory_xact_lock_shared(24852988478448748);
  -- Once for the page, so that no plan that was made while there were few dead letters reads all of them for each row.
  referred := ARRAY(
    SELECT delivery_id FROM public.dead_letter
      WHERE delivery_id > after AND delivery_id <= remove_deliveries.last AND state = 'open'
    UNION ALL
    SELECT delivery_id FROM public.dead_letter
      WHERE delivery_id > after AND delivery_id <= remove_deliveries.last AND state <> 'open');
  WITH old AS MATERIALIZED (
    SELECT id FROM public.delivery
    WHERE id > after AND id <= remove_deliveries.last AND state IN ('delivered', 'discarded') AND settled_at < until
      AND id <> ALL (referred)
    ORDER BY id FOR UPDATE SKIP LOCKED),
  gone AS (
    DELETE FROM public.delivery USING old WHERE delivery.id = old.id
    RETURNING delivery.id, delivery.endpoint_id, delivery.state, delivery.settled_at),
  copies AS (
    DELETE FROM public.delivery_search AS copied USING gone WHERE copied.endpoint_id = gone.endpoint_id AND copied.id = gone.id),
  counted AS (
    INSERT INTO public.past_delivery AS past (endpoint_id, day, state, n)
    SELECT endpoint_id, CAST(settled_at AT TIME ZONE 'UTC' AS date), gone.state, count(*) FROM gone GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (endpoint_id, day, state) DO UPDATE SET n = past.n + excluded.n)
  SELECT count(*) INTO removed FROM gone;
END $$;

-- Drops the oldest day of attempts, if it ended before then. To detach it takes a lock that keeps readers and writers of attempts
-- waiting: it waits for that for a fifth of a second at most, and then raises lock_not_available. Returns the day, or null.
CREATE FUNCTION drop_attempts(before timestamptz) RETURNS date
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
  oldest record;
BEGIN
  PERFORM public.refuse_young(before);
  PERFORM pg_advisory_xact_lock(hashtext('waxseal attempt partitions'));
  SELECT relname, day, inhrelid IS NOT NULL AS attached INTO oldest
    FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
      CROSS JOIN LATERAL (SELECT public.attempt_partition_day(relname) AS day) AS of_name
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND day IS NOT NULL
      AND (inhparent IS NULL OR inhparent = 'public.attempt'::regclass)
    ORDER BY day LIMIT 1;
  IF NOT FOUND OR (oldest.day + 1)::timestamp AT TIME ZONE 'UTC' > before THEN RETURN NULL; END IF;
  EXECUTE format('DROP TABLE public.%I', oldest.relname);
  RETURN oldest.day;
END $$;

-- At most `most` closed dead letters, operator events (`endpoint_events`: only those of endpoints) or acts of the audit, the oldest
-- first; returns how many rows. An act goes whole, with the row of its end, and not while a job has it.
CREATE FUNCTION remove_told(what text, before timestamptz, most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  removed bigint;
  acts bigint[];
BEGIN
  PERFORM public.refuse_young(before);
  IF what = 'dead_letters' THEN
    DELETE FROM public.dead_letter WHERE id IN (
      SELECT id FROM public.dead_letter WHERE state <> 'open' AND decided_at < before
      ORDER BY decided_at LIMIT most FOR UPDATE SKIP LOCKED);
  ELSIF what IN ('operator_events', 'endpoint_events') THEN
    DELETE FROM public.operator_event WHERE id IN (
      SELECT id FROM public.operator_event
      WHERE at < before AND (what = 'operator_events' OR endpoint_id IS NOT NULL) ORDER BY id LIMIT most);
  ELSIF what = 'audit' THEN
    acts := ARRAY(
      SELECT id FROM public.audit AS act WHERE at < before AND begun IS NULL
        AND NOT EXISTS (SELECT FROM public.audit AS ending WHERE ending.begun = act.id AND ending.at >= before)
        AND NOT EXISTS (SELECT FROM public.job WHERE job.audit = act.id)
      ORDER BY id LIMIT most);
    DELETE FROM public.audit WHERE id = ANY(acts) OR begun = ANY(acts);
  ELSE
    RAISE EXCEPTION 'cannot remove %', what;
  END IF;
  GET DIAGNOSTICS removed = ROW_COUNT;
  RETURN removed;
END $$;

REVOKE ALL ON FUNCTION remove_deliveries, drop_attempts, remove_told, refuse_young, attempts_since, attempt_partition_day
  FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_deliveries, drop_attempts, remove_told TO waxseal_eraser;
GRANT SELECT ON past_delivery TO waxseal_reader, waxseal_writer, waxseal_eraser;
GRANT SELECT ON operator_event TO waxseal_eraser;
