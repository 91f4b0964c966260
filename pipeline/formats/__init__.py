"""Formats of messages and of stored values: CloudEvents, JSON, forms, times. Pure; no rules of one sender or of delivery."""
