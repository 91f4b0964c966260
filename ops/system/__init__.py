"""Brings the whole system up and down. What the processes do is not known here."""
