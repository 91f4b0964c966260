"""The network parts of commands, which run in the command's own process. No worker process lives here."""
