"""Search for events and deliveries in pages, and the index that it needs. What console and API call."""
