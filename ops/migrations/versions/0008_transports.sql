-- Which transports there are, the configuration file's check says, before anything is written; the database keeps to the form of
-- their names, so that a new one needs no migration. A process that does not know an endpoint's transport sends nothing there.
ALTER TABLE endpoint DROP CONSTRAINT endpoint_transport_check,
  ADD CONSTRAINT endpoint_transport_check CHECK (transport ~ '^[a-z][a-z0-9]{0,19}$');
