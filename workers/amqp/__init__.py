"""The connection to RabbitMQ: topology, links, publishers, frames. What messages mean is not known here."""
