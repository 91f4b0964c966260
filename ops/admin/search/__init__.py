"""Searches for operators: pages of events and deliveries, by cursors."""
