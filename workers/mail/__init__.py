"""Mailboxes over the network: the interface that every kind implements. The kinds and the processes are in the folders."""
