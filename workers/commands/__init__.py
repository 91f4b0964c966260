"""What commands do over the network, in the command's own process. No process of its own lives here."""
