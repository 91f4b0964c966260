"""Servers and receivers that tests start on the loopback address, and their ports and certificates. No mailboxes."""
