"""Metrics and probes, and what reads their values. Nothing here decides anything."""
