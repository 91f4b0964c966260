"""The configuration file's schema, and what can be configured: transports and kinds of mailboxes. Nothing here reads a file."""
