"""Brings the whole system up and down. Nothing here knows what the processes do."""
