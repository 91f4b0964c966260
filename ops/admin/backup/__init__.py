"""Backups of a system: taking one, verifying one, and a restore into a new data folder."""
