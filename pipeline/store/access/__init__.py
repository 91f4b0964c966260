"""Statements on who may use the console and the API: tokens, sessions, logins under way, and rates. Secrets are hashed."""
