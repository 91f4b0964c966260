"""Sends one delivery, by HTTP, AMQP or SMTP, and gives a receipt. No retries, no database."""
