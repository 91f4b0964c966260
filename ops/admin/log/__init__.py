"""What operators ask and do about the tenants' logs: keys, standing, a new incarnation after a restore."""
