"""Private PostgreSQL and RabbitMQ, and the processes and files that they need. Nothing here knows of tenants."""
