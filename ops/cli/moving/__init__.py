"""Commands on tenants between cells."""
