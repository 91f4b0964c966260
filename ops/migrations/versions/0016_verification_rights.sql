-- What a verification found is shown by metrics and status: a login that writes the ledger, or only reads it, could say there
-- that all of it is intact. The verifier's role records it, and the database's owner.

REVOKE INSERT ON verification FROM waxseal_writer, waxseal_reader;
