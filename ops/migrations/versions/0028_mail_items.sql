-- Nothing is removed unless a policy says so: now of held mails too. Only objects and columns with defaults are added: processes of
-- before go on, and what they compare does not count as compared.

-- When the mailbox last listed it, to a week; what was held before this migration counts as listed by then.
ALTER TABLE mail_item ADD COLUMN listed_at timestamptz NOT NULL DEFAULT now();
CREATE INDEX mail_item_by_listing ON mail_item (mailbox_id, folder, listed_at);

-- A comparison of all mails of a folder, which is its backfill lane. A process of before moves the cursor and not `listing_moved`,
-- and stamps no mail: then it is none.
ALTER TABLE mailbox_cursor
  ADD COLUMN listing_from  timestamptz,                -- when the one under way began
  ADD COLUMN listing_moved timestamptz,                -- moved_at, as whoever stamps mails left it
  ADD COLUMN compared_from timestamptz;                -- when the last one that was finished began

-- Up to when mails had to be listed last, to have been in no list of a whole comparison. They are stamped when their stamp is a week
-- old, unless another session has them locked: the second week is for that. What was imported from files, no mailbox lists.
CREATE VIEW compared_folder AS
  SELECT mailbox_id, folder, '' AS keys, least(compared_from, now()) - interval '14 days' AS until
    FROM mailbox_cursor WHERE lane = 'backfill' AND compared_from IS NOT NULL
  UNION ALL
  SELECT id, 'import', 'import/', 'infinity' FROM mailbox;

-- Removes at most `most` mails that their mailbox listed last before then, and that it no longer has; returns how many. If one of
-- them comes back, it is fetched and published again, and the ledger drops it as a duplicate.
CREATE FUNCTION remove_mail_items(before timestamptz, most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  removed bigint;
BEGIN
  PERFORM public.refuse_young(before);
  WITH old AS MATERIALIZED (
    SELECT item.mailbox_id, item.source_key
    FROM public.compared_folder AS compared CROSS JOIN LATERAL (
      SELECT mailbox_id, source_key FROM public.mail_item
      WHERE mailbox_id = compared.mailbox_id AND folder = compared.folder AND listed_at < least(before, compared.until)
        AND starts_with(source_key, compared.keys)
      ORDER BY listed_at LIMIT most FOR UPDATE SKIP LOCKED) AS item
    LIMIT most)
  DELETE FROM public.mail_item USING old
  WHERE mail_item.mailbox_id = old.mailbox_id AND mail_item.source_key = old.source_key;
  GET DIAGNOSTICS removed = ROW_COUNT;
  RETURN removed;
END $$;

-- When the mail of which nothing was heard for longest was last listed: from the beginning of the index for each folder.
CREATE FUNCTION mail_items_since() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT min(first.listed_at)
  FROM (SELECT mailbox_id, folder FROM public.mailbox_cursor WHERE lane = 'backfill' UNION SELECT id, 'import' FROM public.mailbox)
    AS of CROSS JOIN LATERAL (
      SELECT listed_at FROM public.mail_item WHERE mailbox_id = of.mailbox_id AND folder = of.folder
      ORDER BY listed_at LIMIT 1) AS first
$$;

REVOKE ALL ON FUNCTION remove_mail_items, mail_items_since FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_mail_items TO waxseal_eraser;
GRANT EXECUTE ON FUNCTION mail_items_since TO waxseal_eraser, waxseal_writer;
