"""Who asks: tokens, sessions, logins by OpenID, and the defence of forms against other sites."""
