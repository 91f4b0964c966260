"""The mail-pull process: from mailboxes to the inbox. How a kind of mailbox is asked is in its folder."""
