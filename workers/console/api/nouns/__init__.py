"""The operations on each noun: tenants, events, deliveries and the like."""
