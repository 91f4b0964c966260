-- Who may use the console and the API. Of tokens and cookies only hashes are stored: who reads the database, or a backup of it,
-- can use none of them.

CREATE TABLE access_token (
  id            text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{8}$'),
  hash          bytea NOT NULL CHECK (octet_length(hash) = 32),       -- SHA-256 of the whole token
  who           text NOT NULL CHECK (who <> ''),                      -- whom the audit names
  role          text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
  tenant        text,                                                 -- null: all of them
  once          boolean NOT NULL DEFAULT false,                       -- good for one login only
  created_at    timestamptz NOT NULL,
  created_by    text NOT NULL,
  expires_at    timestamptz NOT NULL,
  last_used_at  timestamptz,                                          -- to the minute
  revoked_at    timestamptz,
  revoked_by    text,
  CHECK (expires_at > created_at),
  CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX access_token_by_tenant ON access_token (tenant, created_at);

-- One login of one browser. A session that a token began ends with that token.
CREATE TABLE console_session (
  key         bytea PRIMARY KEY CHECK (octet_length(key) = 32),       -- SHA-256 of the cookie's value
  id          text NOT NULL UNIQUE,                                   -- its name in lists and in the audit
  who         text NOT NULL CHECK (who <> ''),
  issuer      text,                                                   -- who it is by OpenID Connect: this pair, nothing else
  subject     text,
  policy      text,                                                   -- hash of the settings that gave an OpenID login its grants
  token_id    text REFERENCES access_token,
  grants      jsonb NOT NULL,
  created_at  timestamptz NOT NULL,
  seen_at     timestamptz NOT NULL,                                   -- to the minute
  fresh_at    timestamptz,                                            -- when the person last proved who it is, if that is known
  idle_until  timestamptz NOT NULL,
  ends_at     timestamptz NOT NULL,
  ended_at    timestamptz,
  address     text NOT NULL,
  agent       text NOT NULL,
  CHECK ((issuer IS NULL) = (subject IS NULL) AND (issuer IS NULL) = (policy IS NULL) AND (issuer IS NULL) <> (token_id IS NULL))
);
CREATE INDEX console_session_open ON console_session (who, created_at) WHERE ended_at IS NULL;
CREATE INDEX console_session_by_end ON console_session (ends_at);

-- A login that is under way at an OpenID provider. The row is deleted when the person comes back, so that it serves once.
CREATE TABLE login_attempt (
  key       bytea PRIMARY KEY CHECK (octet_length(key) = 32),         -- SHA-256 of `state`
  browser   bytea NOT NULL CHECK (octet_length(browser) = 32),        -- SHA-256 of the cookie of the browser that began it
  nonce     text NOT NULL,
  verifier  text NOT NULL,                                            -- of PKCE
  next      text NOT NULL,                                            -- the page to go on to
  fresh     boolean NOT NULL,                                         -- the person must prove anew who it is
  begun_at  timestamptz NOT NULL,
  ends_at   timestamptz NOT NULL
);
CREATE INDEX login_attempt_by_end ON login_attempt (ends_at);

-- Rates of logins, of bad tokens and of refused acts: a bucket that fills with each, and is empty at `free_at`.
CREATE TABLE access_rate (
  what     text NOT NULL,
  whose    text NOT NULL,
  free_at  timestamptz NOT NULL,
  PRIMARY KEY (what, whose)
);
CREATE INDEX access_rate_by_time ON access_rate (free_at);

-- Null in rows from before, and of commands.
ALTER TABLE audit
  ADD COLUMN tenant text,
  ADD COLUMN object text,                                             -- what it was done to
  ADD COLUMN means text CHECK (means IN ('cli', 'token', 'session')),
  ADD COLUMN principal text,                                          -- id of the token or of the session
  ADD COLUMN role text,
  ADD COLUMN address text,
  ADD COLUMN request_id text,
  ADD COLUMN reason text,
  ADD COLUMN outcome text CHECK (outcome IN ('refused', 'failed'));   -- null: it was done, or begun
UPDATE audit SET tenant = filter ->> 'tenant' WHERE filter ->> 'tenant' IS NOT NULL;
CREATE INDEX audit_by_tenant ON audit (tenant, id);

GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at, revoked_by) ON access_token TO waxseal_console;
GRANT SELECT, INSERT, UPDATE (seen_at, idle_until, ended_at), DELETE ON console_session TO waxseal_console;
GRANT SELECT, INSERT, UPDATE, DELETE ON login_attempt, access_rate TO waxseal_console;
GRANT SELECT (id, who, role, tenant, once, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by)
  ON access_token TO waxseal_reader;
GRANT SELECT (id, who, issuer, subject, token_id, grants, created_at, seen_at, fresh_at, idle_until, ends_at, ended_at, address,
              agent)
  ON console_session TO waxseal_reader;
