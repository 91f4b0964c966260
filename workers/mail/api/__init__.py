"""Mailboxes behind an HTTP API: Gmail and Microsoft Graph. No scheduling, no database."""
