"""The configuration file's shapes, and what can be configured: transports and kinds of mailboxes."""
