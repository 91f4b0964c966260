-- Large content: who refers to a blob is found by its name, and a dead letter may refer to one.

ALTER TABLE dead_letter ADD COLUMN blob text;          -- reference of the body, which is then empty here

-- Rows without a blob, which most are, are not in them and cost nothing.
CREATE INDEX content_by_blob ON content (blob) WHERE blob IS NOT NULL;
CREATE INDEX dead_letter_by_blob ON dead_letter (blob) WHERE blob IS NOT NULL;
