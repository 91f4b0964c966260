-- Tenants that move to another cell, which is a whole system of its own: one row in the cell that they leave, one in the cell that
-- they come to. Only objects are added: processes of before go on, and the ledger refuses what they would append.

CREATE TABLE tenant_move (
  tenant    text PRIMARY KEY,
  id        uuid NOT NULL,                             -- of the move, the same in both cells
  epoch     int NOT NULL CHECK (epoch >= 1),           -- how often the tenant has moved; the higher one holds
  -- Leaving: copying -> moving -> moved. Coming: arriving -> arrived.
  state     text NOT NULL CHECK (state IN ('copying', 'moving', 'moved', 'arriving', 'arrived')),
  cell      text NOT NULL,                             -- the other cell
  saved     jsonb NOT NULL DEFAULT '{}',               -- what the freeze changed, as it was before
  began_at  timestamptz NOT NULL,
  frozen_at timestamptz,
  ended_at  timestamptz,
  CHECK (state NOT IN ('moving', 'moved') OR frozen_at IS NOT NULL),
  CHECK ((state IN ('moved', 'arrived')) = (ended_at IS NOT NULL))
);
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON tenant_move FOR EACH STATEMENT EXECUTE FUNCTION catalog_changed();

-- As before, and: nothing is appended for a tenant that is frozen, has gone, or is still coming. This function is volatile, so each
-- of its statements sees what was committed before it began, though the INSERT may have waited: when whoever appended as the tenant
-- was frozen has ended, nobody can append any more. The error is one that passes: ingest looks again, and keeps the messages for
-- the other cell. The mover, who has the owner's rights, appends what comes, whose entries have positions already, and what was kept
-- when the move is taken back.
CREATE OR REPLACE FUNCTION note_pending() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  refused record;
BEGIN
  IF EXISTS (SELECT FROM public.tenant_move WHERE state IN ('moving', 'moved', 'arriving')) THEN
    SELECT move.tenant, move.state, move.id, move.cell INTO refused FROM public.tenant_move AS move
      WHERE move.state IN ('moving', 'moved', 'arriving') AND move.tenant IN (SELECT tenant FROM appended)
      ORDER BY move.state = 'arriving' LIMIT 1;
    IF FOUND THEN
      IF refused.state = 'moved' OR CAST(refused.id AS text) IS DISTINCT FROM current_setting('waxseal.moving', true)
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

GRANT SELECT ON tenant_move TO waxseal_writer, waxseal_reader, waxseal_sealer, waxseal_eraser;
