"""The mail-idle process: learns of new mail by IMAP IDLE and requests pulls. It pulls nothing itself."""
