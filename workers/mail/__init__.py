"""Mailboxes over the network: what every kind of mailbox is to those who pull it. The kinds are in the folders."""
