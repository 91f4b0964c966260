"""Private PostgreSQL, RabbitMQ and Prometheus, and the processes and files that they need. Nothing here knows of tenants."""
