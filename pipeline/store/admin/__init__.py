"""Statements for operators and for the schema: audit, notices, counts, queries. None that the route's steps run."""
