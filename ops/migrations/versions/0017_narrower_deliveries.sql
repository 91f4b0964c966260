-- What an event costs: fewer index entries for its deliveries, and room in the pages of chains' heads.

-- Only deliveries in order are looked up by their chain while they are unsettled. All others are found endpoint by endpoint in
-- the indexes of pending, leased and paused ones, so a delivery without order has one index entry of 83 bytes less.
DROP INDEX delivery_unsettled;
CREATE INDEX delivery_in_order ON delivery (endpoint_id, chain_id, seq)
  WHERE ordered AND state IN ('pending', 'leased', 'paused');

-- A new chain's head moves within the transaction that makes it. With less room than that of two heads for each, most of them
-- moved to another page, and had all of their index entries written twice. (For pages that are filled from now on.)
ALTER TABLE chain SET (fillfactor = 50);
