-- What was told and done of a tenant in the cell that it left comes after it, too, and says where that was.

ALTER TABLE audit ADD COLUMN cell text;                -- where it was done; null: in this cell
ALTER TABLE operator_event ADD COLUMN cell text;       -- the same
CREATE INDEX operator_event_by_tenant ON operator_event (tenant, id);

-- Of tenants that came before, whose copy may still be in the other cell, the next run of the mover brings them.
ALTER TABLE tenant_history
  ADD COLUMN events bigint NOT NULL DEFAULT 0,         -- the ids of the other cell
  ADD COLUMN acts   bigint NOT NULL DEFAULT 0;
UPDATE tenant_history SET whole = false;
