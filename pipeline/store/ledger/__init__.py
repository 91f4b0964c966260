"""Statements on chains, entries and content. They append and read; nothing here updates an entry."""
