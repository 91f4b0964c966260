"""The processes: thin, and the only ones that talk to the network."""
