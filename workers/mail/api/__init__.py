"""Mailboxes read through an HTTP API: Gmail and Microsoft Graph. No scheduling, no database."""
