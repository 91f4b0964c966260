"""Mailboxes over IMAP. No scheduling, no database."""
