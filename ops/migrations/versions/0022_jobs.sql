-- Long acts of operators. A console process runs a job under a lease; each chunk of it is one transaction with its row here, so
-- a process that was killed or stood still has done what `done` says, and another one does the rest.
CREATE TABLE job (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind       text NOT NULL CHECK (kind IN
               ('replay', 'discard', 'endpoint_replay', 'endpoint_discard', 'redeliver', 'verify', 'export')),
  tenant     text,                                     -- null: all tenants, and what belongs to none
  arguments  jsonb NOT NULL,
  who        text NOT NULL,
  state      text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
  total      bigint CHECK (total >= 0),                -- null: not known
  done       bigint NOT NULL DEFAULT 0 CHECK (done >= 0),
  "left"     jsonb NOT NULL DEFAULT '{}',              -- how many were left as they were, by reason
  place      jsonb NOT NULL DEFAULT '{}',              -- how far it is, and where it ends
  audit      bigint NOT NULL REFERENCES audit,         -- its act, which ends when the job does
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  ended_at   timestamptz,
  cancel_by  text,                                     -- who asked for its end
  lease      uuid,
  lease_until timestamptz,
  owner      text,                                     -- the process that runs it, or has run it
  runs       int NOT NULL DEFAULT 0,                   -- how often it was begun without getting any further
  error      text,
  result     jsonb,
  CONSTRAINT job_leased CHECK ((state = 'running') = (lease_until IS NOT NULL) AND (state <> 'running' OR lease IS NOT NULL)),
  CONSTRAINT job_ended CHECK ((state IN ('done', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
  CONSTRAINT job_failed CHECK ((state = 'failed') = (error IS NOT NULL))
);
CREATE INDEX job_unfinished ON job (id) WHERE state IN ('queued', 'running');
CREATE INDEX job_of_tenant ON job (tenant, id);
CREATE INDEX job_ended_at ON job (ended_at) WHERE ended_at IS NOT NULL;

-- The file of an export, in parts of a run under one lease: what a run that lost its lease has written is never read.
CREATE TABLE job_file (
  job_id bigint NOT NULL REFERENCES job ON DELETE CASCADE,
  lease  uuid NOT NULL,
  part   int NOT NULL CHECK (part >= 0),
  data   bytea NOT NULL,
  PRIMARY KEY (job_id, lease, part)
);

-- What was answered under a key, in the transaction of the act: an act without its row here has not happened.
CREATE TABLE idempotency_key (
  principal text NOT NULL,
  key       text NOT NULL,
  asked     bytea NOT NULL,                            -- hash of the request
  status    int NOT NULL,
  answer    bytea NOT NULL,                            -- headers and body, encrypted: they may hold a secret
  at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_key_at ON idempotency_key (at);

GRANT SELECT ON job TO waxseal_reader;
GRANT INSERT, DELETE ON job TO waxseal_console;
GRANT UPDATE (state, total, done, "left", place, started_at, ended_at, cancel_by, lease, lease_until, owner, runs, error, result)
  ON job TO waxseal_console;
GRANT SELECT, INSERT, DELETE ON job_file, idempotency_key TO waxseal_console;
