"""What runs and operates the system: settings, database, logs, metrics, health, private servers and the command line.

No SQL, which is in `pipeline.store`, and no AMQP, which is in `workers`.
"""
