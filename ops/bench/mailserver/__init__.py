"""The configuration of a Dovecot of our own."""
