"""The processes. They are thin, and no other package talks to the network."""
