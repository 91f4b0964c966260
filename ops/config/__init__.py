"""Reads the configuration file, compares it with what is configured, and applies it. No command line."""
