"""Metrics, probes and who reads them. Nothing here decides anything."""
