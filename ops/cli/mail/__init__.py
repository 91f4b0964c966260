"""Commands on mails and mailboxes. What they do is in `ops.admin` and in the workers."""
