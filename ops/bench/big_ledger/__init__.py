"""A ledger of millions of events with their deliveries, made in minutes by the database itself."""
