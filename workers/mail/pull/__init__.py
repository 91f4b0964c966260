"""The mail-pull process: from mailboxes to the inbox. The protocols of the kinds of mailboxes are in their own folders."""
