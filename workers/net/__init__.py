"""Dialling, TLS and the limits of what may be sent, for every transport. No protocol."""
