"""What is configured, as operators see it: tenants, sources, terms of endpoints; and the secrets of endpoints, which rotate."""
