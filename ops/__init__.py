"""Running it: settings, database, logs, metrics, health, private servers and the command line."""
