-- Erasing on request: the console, which has no rights over the ledger, adds a job, and the eraser, which has them, runs it.
ALTER TABLE job DROP CONSTRAINT job_kind_check, ADD CONSTRAINT job_kind_check CHECK (kind IN
  ('replay', 'discard', 'retry', 'endpoint_replay', 'endpoint_discard', 'redeliver', 'verify', 'export', 'erase'));
-- An erasure is of one chain of one tenant, whose id it names: never the subject, which may be personal data.
ALTER TABLE job ADD CONSTRAINT job_erases_one_chain CHECK
  (kind <> 'erase' OR (tenant IS NOT NULL AND arguments ? 'chain' AND arguments ? 'reason'));

-- The eraser runs jobs of its kind, and can add none.
GRANT SELECT ON job TO waxseal_eraser;
GRANT UPDATE (state, total, done, "left", place, started_at, ended_at, lease, lease_until, owner, runs, error, result)
  ON job TO waxseal_eraser;
