-- What verifications of the whole ledger found, so that operators see that they take place, and what the last one said.
CREATE TABLE verification (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  began_at timestamptz NOT NULL,
  ended_at timestamptz NOT NULL CHECK (ended_at >= began_at),
  entries  bigint NOT NULL CHECK (entries >= 0),
  chains   bigint NOT NULL CHECK (chains >= 0),
  faults   bigint NOT NULL CHECK (faults >= 0)
);
CREATE INDEX verification_intact ON verification (ended_at) WHERE faults = 0;
GRANT SELECT, INSERT ON verification TO waxseal_writer;
