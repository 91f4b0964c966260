"""The deliver process. The transports that it sends by are in `workers.transports`."""
