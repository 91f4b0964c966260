"""Access tokens of mailboxes and the consent behind them. No mail is read here."""
