"""Commands on the tenants' logs."""
