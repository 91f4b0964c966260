"""Dialling, TLS, timings and limits, for every transport. No protocol."""
