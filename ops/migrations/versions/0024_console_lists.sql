-- Indexes for the console's lists. Only those rows that came to no good end are in them: recording and delivering pay nothing.

-- Dead and discarded ones apart, each in order of time: a list of one state steps over none of the other.
DROP INDEX delivery_undelivered;
CREATE INDEX delivery_undelivered ON delivery (endpoint_id, state, created_at, id) WHERE state IN ('dead', 'discarded');

-- A tenant's dead letters by number, as they are listed: however many other tenants have, and however many are closed.
CREATE INDEX dead_letter_open_by_id ON dead_letter (tenant, id) WHERE state = 'open';
CREATE INDEX dead_letter_of_tenant ON dead_letter (tenant, id);
