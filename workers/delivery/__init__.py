"""The deliver process. How a transport sends is in `workers.transports`."""
