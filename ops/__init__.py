"""What runs and operates the system: settings, database, logs, metrics, health, private servers and the command line."""
