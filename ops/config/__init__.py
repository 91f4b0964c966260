"""Reads the configuration file, compares it with the configuration in the database, and applies it. No command line."""
