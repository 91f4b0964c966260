"""Statements on chains, entries and content. They append and read; none updates an entry."""
