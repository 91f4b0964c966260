-- Erasing content: what an erasure entry of the same transaction lists, and nothing else; retention by policy.

-- Null: erased with the content, by an erasure entry that says so. The key still finds the chain.
ALTER TABLE chain ALTER COLUMN subject DROP NOT NULL;

-- What was erased, and by which entry: holds only erasures, so that an event pays nothing for it.
CREATE INDEX entry_erasure ON entry (chain_id, seq) WHERE kind = 'erasure';
-- Entries lie in the order of their time, so a summary of each megabyte finds those of a period.
CREATE INDEX entry_by_at ON entry USING brin (at) WITH (autosummarize = on);
CREATE INDEX dead_letter_of_event ON dead_letter (tenant, event_id) WHERE event_id IS NOT NULL;
CREATE INDEX dead_letter_of_delivery ON dead_letter (delivery_id) WHERE delivery_id IS NOT NULL AND state <> 'open';
CREATE INDEX operator_event_of_endpoint ON operator_event (endpoint_id, at) WHERE endpoint_id IS NOT NULL;
CREATE INDEX mail_item_by_event ON mail_item (mailbox_id, event_id) WHERE event_id IS NOT NULL;

-- Blobs of erased content, until they are deleted or found to be referred to. Written with the erasure: a crash before the
-- blob store is told leaves no erased body there.
CREATE TABLE erased_blob (
  tenant    text NOT NULL,
  reference text NOT NULL,
  erased_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, reference)
);

-- Retention ------------------------------------------------------------------------------------------------------

-- Seconds for which content is kept; null: for ever. That of a source is in its settings.
ALTER TABLE tenant ADD COLUMN retention bigint CHECK (retention > 0);

-- How far each policy has been carried out: everything recorded before `through` was looked at.
CREATE TABLE retention_progress (
  tenant   text NOT NULL,
  source   text NOT NULL,                              -- empty: all sources without a policy of their own
  policy   text NOT NULL,                              -- that it was carried out under; another one begins anew
  through  bigint NOT NULL,                            -- in microseconds, as entry.at
  begun_at timestamptz NOT NULL,                       -- when it was last begun from the beginning
  PRIMARY KEY (tenant, source)
);

-- The last run: by it a clock that jumped is noticed.
CREATE TABLE retention_run (
  single boolean PRIMARY KEY DEFAULT true CHECK (single),
  ran_at timestamptz NOT NULL,
  erased bigint NOT NULL,                              -- entries in that run
  more   boolean NOT NULL,                             -- it stopped at its limit
  held   text                                          -- why nothing is erased until somebody has looked
);

-- Erasure --------------------------------------------------------------------------------------------------------

-- LEDGER §1: HMAC-SHA256 of the content under its salt, from the one hash function that every Postgres has.
CREATE FUNCTION content_commitment(salt bytea, attributes bytea, body bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  inside bytea := decode(repeat('36', 64), 'hex');
  outside bytea := decode(repeat('5c', 64), 'hex');
BEGIN
  FOR n IN 0 .. octet_length(salt) - 1 LOOP
    inside := set_byte(inside, n, get_byte(inside, n) # get_byte(salt, n));
    outside := set_byte(outside, n, get_byte(outside, n) # get_byte(salt, n));
  END LOOP;
  RETURN sha256(outside || sha256(inside || convert_to('waxseal/content/v1', 'UTF8') || '\x00'::bytea
                                  || int8send(octet_length(attributes)) || attributes || body));
END $$;

-- An event's id; null if the attributes cannot be read: altered content is erased as well.
CREATE FUNCTION id_of(attributes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CAST(convert_from(attributes, 'UTF8') AS jsonb) ->> 'id';
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN RETURN NULL;
END $$;

-- The dead letters of these entries, two arrays of one length: those of their deliveries, and messages that bring the same
-- event. By index whatever the statistics say.
CREATE FUNCTION letters_of(chains uuid[], seqs bigint[]) RETURNS TABLE (id bigint, is_message boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
  RETURN QUERY SELECT letter.id, false FROM unnest(chains, seqs) AS listed (chain_id, seq)
    JOIN delivery USING (chain_id, seq) JOIN dead_letter AS letter ON letter.delivery_id = delivery.id AND letter.state = 'open'
  UNION ALL
  SELECT letter.id, false FROM unnest(chains, seqs) AS listed (chain_id, seq)
    JOIN delivery USING (chain_id, seq) JOIN dead_letter AS letter ON letter.delivery_id = delivery.id AND letter.state <> 'open'
  UNION ALL
  SELECT letter.id, true FROM unnest(chains, seqs) AS listed (chain_id, seq)
    JOIN entry USING (chain_id, seq) JOIN content USING (chain_id, seq)
    JOIN dead_letter AS letter ON letter.tenant = entry.tenant AND letter.event_id = id_of(content.attributes)
      AND letter.source = content.source AND letter.delivery_id IS NULL;
END $$;

-- (Their plans are kept: they take longer to make than to run, and go by index whatever the tables' sizes are.)
-- Before the chains' heads are locked, and in the order of a replay and a settlement, so that none of them deadlocks with it.
CREATE FUNCTION lock_for_erasure(chains uuid[], seqs bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
  PERFORM FROM dead_letter WHERE dead_letter.id = ANY(ARRAY(SELECT letters_of.id FROM letters_of(chains, seqs)))
    ORDER BY dead_letter.id FOR UPDATE;
  PERFORM FROM delivery WHERE delivery.id = ANY(ARRAY(
      SELECT delivery.id FROM unnest(chains, seqs) AS listed (chain_id, seq) JOIN delivery USING (chain_id, seq)))
    ORDER BY delivery.id FOR UPDATE;
END $$;

-- The only way to delete content: that which the erasure entry `erasure` lists, in the transaction that appended it. Runs as its
-- owner, because nobody else may delete. Returns what went, and the endpoints whose turn in this chain is free.
CREATE FUNCTION erase_content(chain uuid, erasure bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
  ours record;                                      -- the erasure entry
  told jsonb;
  listed bigint[];
  gone record;                                         -- what the listed entries have
  letters bigint[];
  messages bigint[];
  tried bigint[];                                      -- the deliveries of the listed entries
  endpoints int[];                                     -- that they were for
  since timestamptz;
  words text[];                                        -- what endpoints said of them
  blobs text[];
  turns int[];
  discarded jsonb;
  documents bigint;
  items bigint;
BEGIN
  SELECT entry.tenant, 'epoch'::timestamptz + entry.at * interval '1 microsecond' AS at, entry.pc,
         content.attributes, content.body, content.salt INTO ours
    FROM entry JOIN content USING (chain_id, seq)
    WHERE entry.chain_id = chain AND entry.seq = erasure AND entry.kind = 'erasure'
      AND entry.xmin = CAST(pg_current_xact_id() AS xid);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'entry % of chain % is no erasure that this transaction appended: nothing is erased without one',
      erasure, chain USING ERRCODE = 'insufficient_privilege';
  END IF;
  IF content_commitment(ours.salt, ours.attributes, ours.body) IS DISTINCT FROM ours.pc THEN
    RAISE EXCEPTION 'the content of entry % of chain % is not what the entry commits to', erasure, chain
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  told := CAST(convert_from(ours.body, 'UTF8') AS jsonb);
  IF (SELECT coalesce(sum((run ->> 1)::bigint - (run ->> 0)::bigint + 1), 0) FROM jsonb_array_elements(told -> 'seqs') AS run)
      > 100000 THEN
    RAISE EXCEPTION 'an erasure lists 100000 entries at most' USING ERRCODE = 'program_limit_exceeded';
  END IF;
  listed := ARRAY(
    SELECT seq FROM jsonb_array_elements(told -> 'seqs') AS run,
      generate_series((run ->> 0)::bigint, (run ->> 1)::bigint) AS seq);

  SELECT count(*) AS entries, coalesce(sum(octet_length(attributes) + coalesce(octet_length(content.body), 0)), 0) AS bytes,
         array_agg(content.source) AS sources, array_agg(id_of(attributes)) AS ids,
         coalesce(array_agg(DISTINCT blob) FILTER (WHERE blob IS NOT NULL), '{}') AS blobs INTO gone
    FROM unnest(listed) AS one (seq)
    JOIN entry ON entry.chain_id = chain AND entry.seq = one.seq AND entry.kind = 'event'
    JOIN content ON content.chain_id = chain AND content.seq = one.seq;
  IF gone.entries <> cardinality(listed) THEN
    RAISE EXCEPTION 'entry % of chain % lists an entry that is no event, or whose content is gone', erasure, chain
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;

  SELECT coalesce(array_agg(id) FILTER (WHERE NOT is_message), '{}'),
         coalesce(array_agg(DISTINCT id) FILTER (WHERE is_message), '{}')
    INTO letters, messages FROM letters_of(array_fill(chain, ARRAY[cardinality(listed)]), listed);
  SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(DISTINCT endpoint_id), '{}'), min(created_at) - interval '1 day'
    INTO tried, endpoints, since FROM delivery WHERE delivery.chain_id = chain AND seq = ANY(listed);

  -- Answers and errors are other people's words on the content. Of an error its class stays.
  IF tried <> '{}' THEN
    words := ARRAY(
      SELECT error FROM delivery WHERE delivery.id = ANY(tried) AND strpos(error, ': ') > 0
      UNION SELECT error || ': ' || detail FROM attempt
        WHERE delivery_id = ANY(tried) AND started_at >= since AND error IS NOT NULL AND detail IS NOT NULL);
    IF words <> '{}' THEN
      UPDATE endpoint_health SET last_error = split_part(last_error, ': ', 1)
        WHERE endpoint_id = ANY(endpoints) AND last_error = ANY(words);
      UPDATE endpoint SET reason = replace(reason, word, split_part(word, ': ', 1))
        FROM unnest(words) AS word WHERE endpoint.id = ANY(endpoints) AND strpos(reason, word) > 0;
      UPDATE operator_event SET detail = replace(detail, word, split_part(word, ': ', 1))
        FROM unnest(words) AS word WHERE endpoint_id = ANY(endpoints) AND operator_event.at >= since AND strpos(detail, word) > 0;
    END IF;
    UPDATE attempt SET response = NULL, detail = NULL
      WHERE delivery_id = ANY(tried) AND started_at >= since AND (response IS NOT NULL OR detail IS NOT NULL);

    -- A worker that is sending one just now finds its lease gone: neither its result nor the answer is kept.
    WITH before AS MATERIALIZED (
      SELECT delivery.id, delivery.state FROM delivery
        WHERE delivery.id = ANY(tried) AND delivery.state IN ('pending', 'leased', 'paused', 'dead')),
    ended AS (
      UPDATE delivery SET state = 'discarded', next_attempt_at = NULL, lease = NULL, lease_until = NULL,
          settled_at = coalesce(settled_at, ours.at),
          error = 'its content was erased by entry ' || erasure
                  || CASE WHEN before.state = 'leased' THEN ', perhaps while it was being sent' ELSE '' END
        FROM before WHERE delivery.id = before.id
        RETURNING delivery.endpoint_id, delivery.ordered),
    by_transport AS (
      SELECT transport, count(*) AS count FROM ended LEFT JOIN endpoint ON endpoint.id = endpoint_id GROUP BY 1)
    SELECT ARRAY(SELECT DISTINCT endpoint_id FROM ended WHERE ordered),
           (SELECT jsonb_object_agg(coalesce(transport, 'other'), count) FROM by_transport) INTO turns, discarded;
    UPDATE delivery SET error = NULL WHERE delivery.id = ANY(tried) AND delivery.state = 'delivered' AND delivery.error IS NOT NULL;
  END IF;

  gone.blobs := gone.blobs || ARRAY(SELECT blob FROM dead_letter WHERE dead_letter.id = ANY(messages) AND blob IS NOT NULL);
  DELETE FROM dead_letter WHERE dead_letter.id = ANY(messages);
  UPDATE dead_letter SET state = CASE WHEN state = 'open' THEN 'discarded' ELSE state END, detail = 'erased with its entry',
      decided_at = coalesce(decided_at, ours.at), decided_by = coalesce(decided_by, 'erasure')
    WHERE dead_letter.id = ANY(letters);

  -- The row stays, so that the mail is not fetched again; its digest goes, which would tell whoever guesses the mail.
  UPDATE mail_item SET message_id = NULL, event_id = NULL, flags = array_append(flags, 'erased')
    FROM unnest(gone.sources, gone.ids) AS event (source, id)
      JOIN source ON source.name = event.source JOIN tenant ON tenant.id = source.tenant_id
    WHERE tenant.name = ours.tenant AND mail_item.mailbox_id = source.id AND mail_item.event_id = event.id;
  GET DIAGNOSTICS items = ROW_COUNT;

  SELECT count(*) INTO documents FROM mail_document WHERE mail_document.chain_id = chain AND seq = ANY(listed);
  DELETE FROM content WHERE content.chain_id = chain AND seq = ANY(listed);  -- and with it its document
  -- All of them: whether anything else refers to one is only certain once other erasures have been committed.
  INSERT INTO erased_blob (tenant, reference, erased_at)
    SELECT DISTINCT ours.tenant, reference, ours.at FROM unnest(gone.blobs) AS reference ORDER BY reference
    ON CONFLICT (tenant, reference) DO UPDATE SET erased_at = excluded.erased_at;
  IF (told ->> 'subject')::boolean THEN
    UPDATE chain AS named SET subject = NULL WHERE named.chain_id = chain;
  END IF;
  RETURN jsonb_build_object('entries', gone.entries, 'bytes', gone.bytes, 'blobs', cardinality(gone.blobs),
    'documents', documents, 'mails', items, 'letters', cardinality(messages) + cardinality(letters),
    'discarded', coalesce(discarded, '{}'), 'turns', to_jsonb(coalesce(turns, '{}')));
END $$;

-- Privileges -----------------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION erase_content, lock_for_erasure, letters_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_content, lock_for_erasure TO waxseal_eraser;

GRANT SELECT ON entry, content, chain, delivery, attempt, dead_letter, mail_document, endpoint_health, catalog, audit
  TO waxseal_eraser;
GRANT SELECT (id, name, fingerprint_key, before_origins, retention) ON tenant TO waxseal_eraser;
GRANT SELECT (id, tenant_id, name, kind, settings) ON source TO waxseal_eraser;
GRANT INSERT ON entry, content, audit TO waxseal_eraser;
GRANT UPDATE (seq, hash) ON chain TO waxseal_eraser;
GRANT UPDATE (next_attempt_at) ON delivery TO waxseal_eraser;  -- passes on the turns of what it discards
GRANT SELECT, DELETE ON erased_blob TO waxseal_eraser;
GRANT SELECT, INSERT, UPDATE, DELETE ON retention_progress TO waxseal_eraser;
GRANT SELECT, INSERT, UPDATE ON retention_run TO waxseal_eraser;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO waxseal_eraser;
GRANT SELECT ON retention_run, retention_progress, erased_blob TO waxseal_writer, waxseal_reader;
