"""Statements on mailboxes, what was pulled from them, and the documents of mails. No rules: `pipeline.mail` has them."""
