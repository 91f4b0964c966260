"""Statements that write, select and close dead letters. No policy."""
