"""The mail-idle process: hears of new mail. It pulls nothing itself."""
