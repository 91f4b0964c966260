-- A subject whose key is not known, or was altered, is found without reading all chains. Of the subject it has a digest: the subject
-- itself may be longer than an index allows. Neither column changes, so heads move as before. The index on the tenant alone stays: to
-- drop it would have to wait for whoever reads chains, as a verification does for long.
CREATE INDEX chain_by_subject ON chain (tenant, hashtextextended(subject, 0));
