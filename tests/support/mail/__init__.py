"""Mailboxes for tests: servers of every kind, fakes of what is kept of them, and malformed mails. No fixtures."""
