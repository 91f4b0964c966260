"""Who may use the console and the API: tokens and sessions, made, listed and ended."""
