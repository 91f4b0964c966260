-- Delivery that an operator can trust: other transports, health of endpoints, order, a partitioned attempt log, audit.

-- An endpoint is reached by exactly one transport; what amqp and smtp need beside it is in settings.
ALTER TABLE endpoint
  ADD COLUMN transport text NOT NULL DEFAULT 'http' CHECK (transport IN ('http', 'amqp', 'smtp')),
  ALTER COLUMN url DROP NOT NULL,
  ADD CONSTRAINT endpoint_target CHECK ((transport = 'http') = (url IS NOT NULL));

-- The health of an endpoint, shared by all processes. Apart from endpoint, so that the catalog does not move with every failure.
-- No row: nothing ever failed, and no rate is limited.
CREATE TABLE endpoint_health (
  endpoint_id    int PRIMARY KEY REFERENCES endpoint,
  breaker        text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'half_open')),
  forced         boolean NOT NULL DEFAULT false,       -- by an operator: it stays as it is until released
  opened_at      timestamptz,
  probe_at       timestamptz,                          -- when an open breaker lets one delivery through; never, if forced
  trips          int NOT NULL DEFAULT 0,               -- in a row, without a success between
  window_from    timestamptz,                          -- of the two counts below
  successes      int NOT NULL DEFAULT 0,
  failures       int NOT NULL DEFAULT 0,
  not_before     timestamptz,                          -- 429, 502, 503, 504: the whole endpoint waits
  throttles      int NOT NULL DEFAULT 0,               -- in a row: the wait grows with them
  tokens         double precision,                     -- of the rate limit's bucket, at tokens_at
  tokens_at      timestamptz,
  failing_since  timestamptz,                          -- of nothing but failures; null after a success
  streak         int NOT NULL DEFAULT 0,               -- how many failures since then
  last_error     text,
  enabled_at     timestamptz,                          -- when it was last enabled again
  changed_at     timestamptz NOT NULL DEFAULT now(),
  CHECK ((breaker = 'closed') = (opened_at IS NULL)),
  CHECK ((breaker = 'open' AND NOT forced) = (probe_at IS NOT NULL)),
  CHECK (NOT forced OR breaker <> 'half_open'),
  CHECK ((window_from IS NULL) = (failures = 0)),
  CHECK ((failing_since IS NULL) = (streak = 0)),
  CHECK ((tokens IS NULL) = (tokens_at IS NULL))
) WITH (fillfactor = 50);

-- What was never tried and what is tried again are claimed from lanes of their own, so that neither waits behind the other.
-- In an ordered endpoint's lane only one delivery of each subject has its turn; the others have no time of a next attempt.
ALTER TABLE delivery
  ADD COLUMN lane smallint GENERATED ALWAYS AS (least(attempts, 1)) STORED,
  ADD COLUMN ordered boolean NOT NULL DEFAULT false,
  ADD COLUMN age_from timestamptz,                     -- from when its age counts, if not from created_at: a replay, a release
  DROP CONSTRAINT delivery_due,
  ADD CONSTRAINT delivery_due
    CHECK (CASE WHEN state = 'pending' THEN ordered OR next_attempt_at IS NOT NULL ELSE next_attempt_at IS NULL END);

-- Claims go endpoint by endpoint and lane by lane, so that no backlog stands before another endpoint's deliveries.
DROP INDEX delivery_by_due;
CREATE INDEX delivery_by_due ON delivery (endpoint_id, lane, next_attempt_at) WHERE state = 'pending';
DROP INDEX delivery_by_lease;
CREATE INDEX delivery_by_lease ON delivery (endpoint_id, lease_until) WHERE state = 'leased';
DROP INDEX delivery_unfinished;
-- At most one of a subject has its turn: a second one is refused.
CREATE UNIQUE INDEX delivery_in_turn ON delivery (endpoint_id, chain_id)
  WHERE ordered AND (state = 'leased' OR next_attempt_at IS NOT NULL);
-- Those whose turn has not come, to find a chain in which it was never passed on.
CREATE INDEX delivery_waiting ON delivery (endpoint_id, chain_id, seq) WHERE state = 'pending' AND next_attempt_at IS NULL;
-- Deliveries that are not settled, by chain: order within a subject, and what an endpoint still misses.
CREATE INDEX delivery_unsettled ON delivery (endpoint_id, chain_id, seq) WHERE state IN ('pending', 'leased', 'paused');
-- What endpoints missed while they were disabled, until somebody decides.
CREATE INDEX delivery_paused ON delivery (endpoint_id, created_at, id) WHERE state = 'paused';
-- What came to no good end, in order of time; together with the one above, every pair that is not delivered.
CREATE INDEX delivery_undelivered ON delivery (endpoint_id, created_at, id) WHERE state IN ('dead', 'discarded');

-- A replay begins the schedule anew, while attempts go on being counted: the schedule is at step attempts - schedule_from.
ALTER TABLE delivery ADD COLUMN schedule_from int NOT NULL DEFAULT 0, ADD CHECK (schedule_from BETWEEN 0 AND attempts);

-- A delivery leaves two dead rows behind, and claims step over them: they are swept by number, not by share of the table.
ALTER TABLE delivery SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);

-- Attempts by day, so that old ones are dropped whole. No DEFAULT partition: it would block that. Made ahead by the relay.
DROP TABLE attempt;
CREATE TABLE attempt (
  delivery_id bigint NOT NULL,
  n           int NOT NULL CHECK (n >= 1),
  started_at  timestamptz NOT NULL,
  seconds     real NOT NULL,
  outcome     text NOT NULL CHECK (outcome IN ('delivered', 'retry', 'dead')),
  status      int,
  error       text,
  detail      text,
  response    bytea CHECK (octet_length(response) <= 4096),
  address     text,                                    -- that was dialled
  reused      boolean,
  dns         real,                                    -- seconds of each phase; null where there was none
  connect     real,
  tls         real,
  first_byte  real,
  CHECK ((status IS NULL) <= (error IS NOT NULL))      -- no answer without an error that stands in its place
) PARTITION BY RANGE (started_at);
CREATE INDEX attempt_by_delivery ON attempt (delivery_id);

-- Runs as its owner, because a worker may not create tables; it can make day partitions of `attempt` and nothing else.
-- ATTACH, unlike CREATE ... PARTITION OF, neither waits for who reads or writes attempts nor makes them wait.
CREATE FUNCTION make_attempt_partitions(first date, days int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '5s' AS $$
DECLARE day date; name text; made int := 0;
BEGIN
  IF days NOT BETWEEN 1 AND 32 THEN RAISE EXCEPTION 'days must be 1 to 32'; END IF;
  PERFORM pg_advisory_xact_lock(hashtext('waxseal attempt partitions'));
  FOR day IN SELECT first + n FROM generate_series(0, days - 1) n LOOP
    name := 'attempt_' || to_char(day, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('public.' || name) IS NOT NULL;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.attempt INCLUDING ALL)', name);
    EXECUTE format('ALTER TABLE public.attempt ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
REVOKE ALL ON FUNCTION make_attempt_partitions FROM PUBLIC;
SELECT make_attempt_partitions((now() AT TIME ZONE 'UTC')::date - 1, 9);

-- Every act of an operator: who, when, on what, and to how many. An act on many has two rows: one before anything is done,
-- with the number it is meant for, and one at its end, with the number it came to. Where the second is missing, it was cut off.
CREATE TABLE audit (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at      timestamptz NOT NULL,
  who     text NOT NULL,
  act     text NOT NULL,
  filter  jsonb NOT NULL,
  count   bigint NOT NULL,
  phase   text NOT NULL DEFAULT 'done' CHECK (phase IN ('begun', 'done')),
  begun   bigint UNIQUE REFERENCES audit,              -- the first row of the act that this one ends
  CHECK (begun IS NULL OR phase = 'done')
);

-- Operator events: what operators are told without reading logs.
CREATE TABLE operator_event (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at          timestamptz NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('endpoint_disabled', 'endpoint_enabled', 'breaker_opened', 'breaker_closed')),
  tenant      text NOT NULL,
  endpoint_id int,
  detail      text NOT NULL
);

-- A dead letter that was replayed or discarded says when and by whom. What an actor failed at may name a delivery too.
ALTER TABLE dead_letter
  ADD COLUMN error text,                               -- class of the failure; the reason says why that was the end
  ADD COLUMN decided_at timestamptz,
  ADD COLUMN decided_by text,
  ADD CONSTRAINT dead_letter_decided CHECK ((state = 'open') = (decided_at IS NULL) AND (decided_at IS NULL) = (decided_by IS NULL)),
  DROP CONSTRAINT dead_letter_check,
  ADD CONSTRAINT dead_letter_delivery CHECK (stage = 'actor' OR (stage = 'deliver') = (delivery_id IS NOT NULL));
CREATE INDEX dead_letter_by_delivery ON dead_letter (delivery_id) WHERE state = 'open';
CREATE INDEX dead_letter_by_stage ON dead_letter (stage, last_at) WHERE state = 'open';
CREATE INDEX dead_letter_closed ON dead_letter (decided_at) WHERE state <> 'open';

GRANT SELECT, INSERT, UPDATE ON endpoint_health TO waxseal_writer;
GRANT SELECT, INSERT ON attempt, audit, operator_event TO waxseal_writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO waxseal_writer;
GRANT EXECUTE ON FUNCTION make_attempt_partitions TO waxseal_writer;
