"""The connection to RabbitMQ: topology, links, publishers, frames. Nothing here knows what messages mean."""
