"""Commands on mails and mailboxes: options and output only. The acts are in `ops.admin` and in the workers."""
