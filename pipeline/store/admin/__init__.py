"""Statements that operators and the schema need: audit, notices, counts, queries. None of the route."""
