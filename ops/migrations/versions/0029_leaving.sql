-- What a tenant that has moved leaves behind: its settled deliveries and closed dead letters come after it, and then the cell that
-- it left may delete its copy of the ledger. Nothing else may.

-- Leaving: copying -> moving -> moved -> finishing, and then the row goes. A row of before meets the new checks.
ALTER TABLE tenant_move
  DROP CONSTRAINT tenant_move_state_check,
  DROP CONSTRAINT tenant_move_check,
  DROP CONSTRAINT tenant_move_check1,
  ADD CONSTRAINT tenant_move_state_check
    CHECK (state IN ('copying', 'moving', 'moved', 'finishing', 'arriving', 'arrived')),
  ADD CONSTRAINT tenant_move_frozen CHECK (state NOT IN ('moving', 'moved', 'finishing') OR frozen_at IS NOT NULL),
  ADD CONSTRAINT tenant_move_ended CHECK ((state IN ('moved', 'finishing', 'arrived')) = (ended_at IS NOT NULL));

-- In the cell that a tenant has come to: up to which rows of the other cell the history has come. Only the owner uses it.
CREATE TABLE tenant_history (
  tenant     text PRIMARY KEY,
  move       uuid NOT NULL,
  deliveries bigint NOT NULL DEFAULT 0,                -- the ids of the other cell
  letters    bigint NOT NULL DEFAULT 0,
  whole      boolean NOT NULL DEFAULT false            -- there is no more
);

-- As before, and: the rows of a tenant that lives in another cell, while its copy is deleted by the move of that id. Whoever
-- deletes them must have the owner's rights, and no role of a process has those, or may delete from these tables.
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  finished text := current_setting('waxseal.finishing', true);
  of text;
BEGIN
  IF TG_OP = 'DELETE' AND finished <> '' THEN
    IF TG_TABLE_NAME IN ('entry', 'log') THEN
      of := OLD.tenant;
    ELSIF TG_TABLE_NAME = 'leaf' THEN -- its log goes before it
      of := (SELECT tenant FROM public.entry WHERE chain_id = OLD.chain_id AND seq = OLD.seq);
    ELSE
      of := (SELECT tenant FROM public.log WHERE id = OLD.log_id);
    END IF;
    IF EXISTS (SELECT FROM public.tenant_move WHERE tenant = of AND state = 'finishing' AND CAST(id AS text) = finished)
       AND pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- As before, and: nothing is appended for a tenant whose copy is being deleted.
CREATE OR REPLACE FUNCTION note_pending() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused record;
BEGIN
  IF EXISTS (SELECT FROM public.tenant_move WHERE state IN ('moving', 'moved', 'finishing', 'arriving')) THEN
    SELECT move.tenant, move.state, move.id, move.cell INTO refused FROM public.tenant_move AS move
      WHERE move.state IN ('moving', 'moved', 'finishing', 'arriving') AND move.tenant IN (SELECT tenant FROM appended)
      ORDER BY move.state = 'arriving' LIMIT 1;
    IF FOUND THEN
      IF refused.state IN ('moved', 'finishing')
         OR CAST(refused.id AS text) IS DISTINCT FROM current_setting('waxseal.moving', true)
         OR NOT pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'tenant % is % (cell %): nothing is appended for it here', refused.tenant, refused.state, refused.cell
          USING ERRCODE = 'serialization_failure', SCHEMA = 'public', TABLE = 'entry', CONSTRAINT = 'tenant_move';
      ELSIF refused.state = 'arriving' THEN
        RETURN NULL;
      END IF;
    END IF;
  END IF;
  INSERT INTO public.log_pending (tenant, chain_ids, firsts, counts, entries, at)
  SELECT tenant, array_agg(chain_id), array_agg(first), array_agg(last - first + 1), sum(last - first + 1), min(at)
  FROM (SELECT tenant, chain_id, min(seq) AS first, max(seq) AS last, min(at) AS at, (row_number() OVER () - 1) / 1000 AS part
        FROM appended GROUP BY tenant, chain_id) AS span
  GROUP BY tenant, part;
  RETURN NULL;
END $$;
