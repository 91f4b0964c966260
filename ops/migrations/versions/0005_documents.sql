-- What is read out of mails. Derived from content, gone with it, and made again at any time: no hash covers it.

-- The row is written in the entry's own transaction, so that no mail is passed over; whoever makes documents looks for what
-- is due. While one is made again, the old one is there.
CREATE TABLE mail_document (
  chain_id  uuid NOT NULL,
  seq       bigint NOT NULL,
  due       boolean NOT NULL DEFAULT true,
  taken_at  timestamptz,                               -- by somebody who makes it just now; a minute later by anybody
  document  jsonb,
  parser    int,                                       -- the version that made it
  made_at   timestamptz,
  PRIMARY KEY (chain_id, seq),
  FOREIGN KEY (chain_id, seq) REFERENCES content ON DELETE CASCADE,
  CHECK ((document IS NULL) = (parser IS NULL) AND (parser IS NULL) = (made_at IS NULL)),
  CHECK (due OR document IS NOT NULL),
  CHECK (due OR taken_at IS NULL)
);
CREATE INDEX mail_document_due ON mail_document (chain_id, seq) WHERE due;
-- Those that an earlier version made, to be made again.
CREATE INDEX mail_document_by_parser ON mail_document (parser) WHERE NOT due;

INSERT INTO mail_document (chain_id, seq) SELECT chain_id, seq FROM content WHERE type = 'email.received';

GRANT SELECT, INSERT, UPDATE ON mail_document TO waxseal_writer;
