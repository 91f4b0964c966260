-- Verification as a service: its own role, how far each chain was verified, and what every run found.

DO $$ BEGIN CREATE ROLE waxseal_reader NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE waxseal_verifier NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;

-- The part of verification: the whole ledger, what is new since the verified points, or one of `parts` slices of it.
-- Of the latter two, `entries` counts all entries up to the verified points, `read` those that this run has read.
ALTER TABLE verification
  ADD COLUMN part  text NOT NULL DEFAULT 'whole' CHECK (part IN ('whole', 'new', 'slice')),
  ADD COLUMN read  bigint,
  ADD COLUMN slice int,
  ADD COLUMN parts int,
  ADD CONSTRAINT verification_slice CHECK ((part = 'slice') = (slice IS NOT NULL AND parts IS NOT NULL)
                                           AND (slice IS NULL OR 0 <= slice AND slice < parts));

-- Where each chain ended when it was last verified: out of the writers' reach, so that an end that was cut off shows.
CREATE TABLE verified_point (
  chain_id    uuid PRIMARY KEY,
  tenant      text NOT NULL,
  seq         bigint NOT NULL CHECK (seq >= -1),
  hash        bytea CHECK (octet_length(hash) = 32),
  verified_at timestamptz NOT NULL,
  broken      boolean NOT NULL DEFAULT false           -- a fault was found in it: it is verified from its beginning again
) WITH (fillfactor = 70);

-- What each tenant's ledger was last found to be, and what is missing for more.
CREATE TABLE claim (
  tenant     text PRIMARY KEY,
  word       text NOT NULL CHECK (word IN ('none', 'chained', 'sealed', 'published', 'anchored', 'witnessed')),
  checked_at timestamptz NOT NULL,
  missing    text NOT NULL DEFAULT ''
);

-- A tenant's chains are verified without a scan of all. Neither column ever changes, so heads move as before.
CREATE INDEX chain_by_tenant ON chain (tenant);

GRANT USAGE ON SCHEMA public TO waxseal_reader, waxseal_verifier;
GRANT waxseal_reader TO waxseal_verifier;
GRANT SELECT ON entry, content, chain, delivery, verification, verified_point, claim, alembic_version TO waxseal_reader;
GRANT SELECT ON log, log_pending, leaf, checkpoint, anchor TO waxseal_reader;
GRANT SELECT (id, log_id, public, state, created_at) ON log_key TO waxseal_reader;
GRANT SELECT ON tenant TO waxseal_verifier;
GRANT INSERT ON verification TO waxseal_verifier;
GRANT INSERT, UPDATE ON verified_point, claim TO waxseal_verifier;
GRANT SELECT ON verified_point, claim TO waxseal_writer;
