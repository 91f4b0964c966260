"""What `bench delivery` and `bench claims` are measured on: stages, tables and the peer."""
