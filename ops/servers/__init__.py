"""Private PostgreSQL and RabbitMQ, and the processes and files that they need. Nothing of tenants."""
