-- Nothing is removed unless a policy says so: now of verifications too. Only objects are added or replaced: processes of before go on.

-- As before, and `verifications`: only those that found nothing wrong, and of these none that says what the ledger was last found
-- to be: not the last of the whole, of what is new or of a slice, not what was found since a fault that stands, and not when all
-- was last found intact before it.
CREATE OR REPLACE FUNCTION remove_told(what text, before timestamptz, most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  removed bigint;
  acts bigint[];
  faulty bigint;
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
  ELSIF what = 'verifications' THEN
    faulty := (
      SELECT min(id) FROM (
        SELECT DISTINCT ON (part, slice) id, faults FROM public.verification
        WHERE id >= coalesce((SELECT max(id) FROM public.verification WHERE part = 'whole'), 0)
        ORDER BY part, slice, id DESC) AS latest
      WHERE faults > 0);
    DELETE FROM public.verification WHERE id IN (
      SELECT id FROM public.verification
      WHERE ended_at < before AND faults = 0 AND id < coalesce(faulty, 9223372036854775807)
        AND id <> ALL (ARRAY(SELECT max(id) FROM public.verification GROUP BY part, slice))
        AND id <> (SELECT id FROM public.verification WHERE faults = 0 AND id < coalesce(faulty, 9223372036854775807)
                   ORDER BY ended_at DESC, id DESC LIMIT 1)
      ORDER BY id LIMIT most);
  ELSE
    RAISE EXCEPTION 'cannot remove %', what;
  END IF;
  GET DIAGNOSTICS removed = ROW_COUNT;
  RETURN removed;
END $$;

GRANT SELECT ON verification TO waxseal_eraser;

-- A page of one reason, or of one endpoint, whatever else there is among the dead letters.
CREATE INDEX dead_letter_by_reason ON dead_letter (reason, state, tenant, id);
CREATE INDEX dead_letter_by_endpoint ON dead_letter (endpoint_id, state, id) WHERE endpoint_id IS NOT NULL;
