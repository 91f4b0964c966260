"""Statements on what is configured: tenants, sources, endpoints. Mailboxes have statements of their own."""
